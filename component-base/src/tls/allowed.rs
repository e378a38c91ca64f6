//! Which of the certificates that verify are let in.

use super::x509::{Certificate, VerifyError};

/// Nothing named lets everybody in; of what is named, one has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    pub common_names: Vec<String>,
    /// Names and addresses, by the rules for a server's.
    pub hostnames: Vec<String>,
}

impl Allowed {
    pub fn is_everybody(&self) -> bool {
        self.common_names.is_empty() && self.hostnames.is_empty()
    }

    pub(super) fn check(&self, leaf: &[u8]) -> Result<(), VerifyError> {
        if self.is_everybody() {
            return Ok(());
        }
        let cert = Certificate::parse(leaf)?;
        let fits = self.common_names.contains(&cert.common_name())
            || self.hostnames.iter().any(|name| cert.check_host(name).is_ok());
        match fits {
            true => Ok(()),
            false => Err(VerifyError::NotAllowed),
        }
    }
}
