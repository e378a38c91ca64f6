//! What a client is made from: upstream's `clientv3.ConfigSpec`.

use std::time::Duration;

use super::Error;

#[derive(Clone, Debug, Default)]
pub struct Config {
    pub endpoints: Vec<String>,
    pub dial_timeout: Duration,
    pub keepalive_time: Duration,
    pub keepalive_timeout: Duration,
    /// Bytes; 0 for the default.
    pub max_send_bytes: usize,
    /// Bytes; 0 for the default.
    pub max_receive_bytes: usize,
    pub secure: Secure,
    pub auth: Option<Auth>,
}

#[derive(Clone, Debug, Default)]
pub struct Secure {
    pub cert: String,
    pub key: String,
    pub cacert: String,
    pub server_name: String,
    pub insecure_transport: bool,
    pub insecure_skip_verify: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Auth {
    pub username: String,
    pub password: String,
    /// A JWT that the user already has; nothing is asked of the server then.
    pub token: Option<String>,
}

impl Config {
    pub fn for_endpoint(&self, endpoint: &str) -> Config {
        Config {
            endpoints: vec![endpoint.to_owned()],
            ..self.clone()
        }
    }

    pub(super) fn check_limits(&self) -> Result<(), Error> {
        if self.endpoints.is_empty() {
            return Err(Error::text("at least one Endpoint is required in client config"));
        }
        let (send, receive) = (self.max_send_bytes, self.max_receive_bytes);
        if receive > 0 && send > receive {
            return Err(Error::text(format!(
                "gRPC message recv limit ({receive} bytes) must be greater than send limit ({send} bytes)"
            )));
        }
        Ok(())
    }
}
