//! The kernel behind a trait of one verb. The fake keeps what it was given.

use std::io;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

use super::Batch;
use super::message::encode;

/// Room for the answers to one batch: an error for each message at the worst, and only the first matters.
const ANSWER_BYTES: usize = 64 * 1024;
const ERROR: u16 = 2;
/// The kernel charges more than the bytes of a message against the send buffer.
const SEND_BUFFER_SLACK: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
    #[error("the kernel refused {purpose}: {source}")]
    Refused { purpose: String, source: io::Error },
}

pub trait Kernel: Send {
    /// Applies the whole batch, or nothing of it.
    fn commit(&mut self, batch: &Batch) -> Result<(), KernelError>;
}

/// NETLINK_NETFILTER. The kernel works a batch off inside `send`; its complaints wait in the socket afterwards.
pub struct Netlink {
    socket: OwnedFd,
    send_buffer: usize,
}

impl Netlink {
    pub fn open() -> Result<Self, KernelError> {
        let socket = open_netfilter_socket()?;
        Ok(Self {
            socket,
            send_buffer: 0,
        })
    }

    fn reserve(&mut self, len: usize) -> Result<(), KernelError> {
        let wanted = len + SEND_BUFFER_SLACK;
        if wanted > self.send_buffer {
            rustix::net::sockopt::set_socket_send_buffer_size_force(&self.socket, wanted)
                .map_err(io::Error::from)?;
            self.send_buffer = wanted;
        }
        Ok(())
    }

    fn first_complaint(&self) -> Result<Option<(u32, io::Error)>, KernelError> {
        let mut buffer = vec![0u8; ANSWER_BYTES];
        let mut first = None;
        loop {
            match recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((len, _)) => first = first.or_else(|| complaint(&buffer[..len.min(ANSWER_BYTES)])),
                Err(Errno::AGAIN) => return Ok(first),
                // More complaints than the socket holds: there was at least one.
                Err(Errno::NOBUFS) => first = first.or(Some((u32::MAX, Errno::NOBUFS.into()))),
                Err(error) => return Err(KernelError::Socket(error.into())),
            }
        }
    }
}

pub(crate) fn open_netfilter_socket() -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(NETFILTER),
    )?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

impl Kernel for Netlink {
    fn commit(&mut self, batch: &Batch) -> Result<(), KernelError> {
        let encoded = encode(batch);
        self.reserve(encoded.bytes.len())?;
        sendto(
            &self.socket,
            &encoded.bytes,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )
        .map_err(io::Error::from)?;
        match self.first_complaint()? {
            None => Ok(()),
            Some((sequence, source)) => {
                let purpose = encoded
                    .purposes
                    .get(sequence as usize)
                    .cloned()
                    .unwrap_or_else(|| "the batch".to_owned());
                Err(KernelError::Refused { purpose, source })
            }
        }
    }
}

/// The sequence number and error of the first NLMSG_ERROR that is not an acknowledgement.
fn complaint(mut answers: &[u8]) -> Option<(u32, io::Error)> {
    while answers.len() >= 20 {
        let len = u32_at(answers, 0) as usize;
        let kind = u16::from_ne_bytes([answers[4], answers[5]]);
        let code = u32_at(answers, 16) as i32;
        if kind == ERROR && code < 0 {
            return Some((u32_at(answers, 8), io::Error::from_raw_os_error(-code)));
        }
        answers = answers.get(len.max(16).next_multiple_of(4)..)?;
    }
    None
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Keeps what was committed; refuses when told to.
#[cfg(test)]
#[derive(Default)]
pub struct Fake {
    pub batches: Vec<Batch>,
    pub refuse: usize,
}

#[cfg(test)]
impl Kernel for std::sync::Arc<std::sync::Mutex<Fake>> {
    fn commit(&mut self, batch: &Batch) -> Result<(), KernelError> {
        let mut fake = self.lock().unwrap();
        if fake.refuse > 0 {
            fake.refuse -= 1;
            return Err(KernelError::Refused {
                purpose: "a test".into(),
                source: io::Error::from_raw_os_error(2),
            });
        }
        fake.batches.push(batch.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_found_behind_an_acknowledgement() {
        let mut answers = Vec::new();
        for (sequence, code) in [(1u32, 0i32), (7, -17), (8, -2)] {
            answers.extend_from_slice(&36u32.to_ne_bytes());
            answers.extend_from_slice(&ERROR.to_ne_bytes());
            answers.extend_from_slice(&[0; 2]);
            answers.extend_from_slice(&sequence.to_ne_bytes());
            answers.extend_from_slice(&[0; 4]);
            answers.extend_from_slice(&code.to_ne_bytes());
            answers.extend_from_slice(&[0; 16]);
        }
        let (sequence, error) = complaint(&answers).unwrap();
        assert_eq!((sequence, error.raw_os_error()), (7, Some(17)));
    }

    #[test]
    fn truncated_answers_do_not_panic() {
        for len in 0..40 {
            assert!(complaint(&vec![0xff; len]).is_none_or(|(_, error)| error.raw_os_error().is_some()));
        }
    }
}
