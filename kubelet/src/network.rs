//! What a pod is told about the network: its host name, `/etc/hosts` and resolver. The network itself is the runtime's (CNI).

pub mod dns;
pub mod hosts;
