//! Members in network namespaces of their own, joined by a bridge in one more: cables are pulled and directions blocked without touching the
//! machine's own network. A namespace lives as long as the process that holds it.

use std::future::Future;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use crate::etcdctl::wait_for;

/// Where the members are: the first is `.1`. Certificates of tests name these too.
pub const ADDRESSES: [&str; 3] = ["10.77.0.1", "10.77.0.2", "10.77.0.3"];
/// A holder that was left behind by a killed test ends after so many seconds.
const HOLD_SECONDS: &str = "600";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the beginning of an answer: a stream may last.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub struct Namespace {
    holder: Child,
}

impl Namespace {
    /// None where namespaces may not be made, with the reason printed.
    fn new() -> Option<Namespace> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        let spawned = Command::new("unshare")
            .args(["--net", "sleep", HOLD_SECONDS])
            .stdin(Stdio::null())
            .spawn();
        let mut namespace = match spawned {
            Ok(holder) => Namespace { holder },
            Err(error) => {
                eprintln!("skipped: cannot run unshare (util-linux): {error}");
                return None;
            }
        };
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let mut refused = false;
        wait_for(|| {
            refused = namespace.holder.try_wait().unwrap().is_some();
            refused || std::fs::read_link(namespace.path()).is_ok_and(|made| made != own)
        });
        if refused {
            eprintln!("skipped: unshare --net is refused here");
            return None;
        }
        namespace.run("ip link set lo up");
        Some(namespace)
    }

    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }

    fn run(&self, line: &str) {
        let mut words = line.split(' ');
        let output = enter(&self.path(), words.next().unwrap())
            .args(words)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

/// A program in a namespace; the process that is started becomes the program.
pub fn enter(namespace: &std::path::Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", namespace.display()))
        .arg("--")
        .arg(program);
    command
}

pub struct Network {
    hub: Namespace,
    members: Vec<Namespace>,
}

impl Network {
    /// None where it cannot be made, with the reason printed.
    pub fn new() -> Option<Network> {
        for tool in ["ip", "nft", "nsenter"] {
            if Command::new(tool).arg("--version").output().is_err() {
                eprintln!("skipped: {tool} is not installed (apt-get install iproute2 nftables util-linux)");
                return None;
            }
        }
        let hub = Namespace::new()?;
        hub.run("ip link add br0 type bridge");
        hub.run("ip link set br0 up");
        let mut members = Vec::new();
        for (place, address) in ADDRESSES.iter().enumerate() {
            let member = Namespace::new()?;
            let id = member.holder.id();
            hub.run(&format!(
                "ip link add port{place} type veth peer name eth0 netns {id}"
            ));
            hub.run(&format!("ip link set port{place} master br0 up"));
            member.run(&format!("ip address add {address}/24 dev eth0"));
            member.run("ip link set eth0 up");
            members.push(member);
        }
        Some(Network { hub, members })
    }

    pub fn namespace(&self, place: usize) -> PathBuf {
        self.members[place].path()
    }

    pub fn pull_cable(&self, place: usize) {
        self.hub.run(&format!("ip link set port{place} down"));
    }

    pub fn plug_cable(&self, place: usize) {
        self.hub.run(&format!("ip link set port{place} up"));
    }

    /// The others hear nothing of this member any more.
    pub fn mute(&self, place: usize) {
        self.block(place, "output", "oif");
    }

    /// This member hears nothing of the others any more.
    pub fn deafen(&self, place: usize) {
        self.block(place, "input", "iif");
    }

    fn block(&self, place: usize, hook: &str, interface: &str) {
        let member = &self.members[place];
        member.run("nft add table inet cut");
        member.run(&format!(
            "nft add chain inet cut {hook} {{ type filter hook {hook} priority 0 ; }}"
        ));
        member.run(&format!("nft add rule inet cut {hook} {interface} eth0 drop"));
    }

    pub fn unblock(&self, place: usize) {
        self.members[place].run("nft delete table inet cut");
    }
}

/// Where a member's clients connect: on the loopback of the namespace that it is in.
#[derive(Clone)]
pub struct Address {
    pub port: u16,
    pub namespace: Option<Arc<PathBuf>>,
}

impl Address {
    pub fn here(port: u16) -> Address {
        Address {
            port,
            namespace: None,
        }
    }

    /// Connects when it is used, and again when the connection was lost.
    pub fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port))
            .unwrap()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT);
        match &self.namespace {
            None => endpoint.connect_lazy(),
            Some(namespace) => endpoint.connect_with_connector_lazy(Connector {
                namespace: namespace.clone(),
                port: self.port,
            }),
        }
    }
}

#[derive(Clone)]
struct Connector {
    namespace: Arc<PathBuf>,
    port: u16,
}

impl Connector {
    /// A socket stays in the namespace in which it was made; the thread that made it ends.
    fn connect(&self) -> std::io::Result<TcpStream> {
        let (namespace, port) = (self.namespace.clone(), self.port);
        let connecting = std::thread::spawn(move || {
            let file = std::fs::File::open(&*namespace)?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            let stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        connecting
            .join()
            .unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<tokio::net::TcpStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let connected = tokio::task::spawn_blocking(move || connector.connect()).await;
            let stream = connected.map_err(std::io::Error::other)??;
            Ok(TokioIo::new(tokio::net::TcpStream::from_std(stream)?))
        })
    }
}
