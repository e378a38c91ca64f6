//! Where the first members of a cluster are learnt from, when `--initial-cluster` does not say.

use std::time::Duration;

use anyhow::{Result, bail};
use component_base::flags::Flags;
use component_base::tls::{ClientTls, Pem, alpn};

/// etcd's.
const CONFLICT: &str = "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery\", \"discovery-endpoints\" or \"discovery-srv\"";

pub enum Discovery {
    /// `--initial-cluster`
    Static,
    /// `--discovery-srv`
    Srv { domain: String, service_name: String },
    /// `--discovery-endpoints`
    Service(Box<Service>),
}

/// Another etcd, in which members of a new cluster find each other.
pub struct Service {
    pub endpoints: Vec<String>,
    pub token: String,
    pub user: Option<(String, String)>,
    pub tls: ClientTls,
    /// For endpoints without a scheme.
    pub speaks_tls: bool,
    pub dial_timeout: Duration,
    pub request_timeout: Duration,
    pub keepalive: (Duration, Duration),
}

impl Discovery {
    pub fn from_flags(flags: &Flags) -> Result<Discovery> {
        let text = |name: &str| flags.string(name).to_owned();
        let (domain, endpoints) = (text("discovery-srv"), flags.strings("discovery-endpoints"));
        if !flags.string("discovery").is_empty() {
            bail!(
                "--discovery asks a service of the v2 API, of which none is left: use --discovery-endpoints and --discovery-token"
            );
        }
        let ways = [
            flags.is_set("initial-cluster") && !flags.string("initial-cluster").is_empty(),
            !domain.is_empty(),
            !endpoints.is_empty(),
        ];
        if ways.iter().filter(|way| **way).count() > 1 {
            bail!("{CONFLICT}");
        }
        if flags.string("discovery-token").is_empty() != endpoints.is_empty() {
            bail!("both --discovery-token and --discovery-endpoints must be set");
        }
        if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
            bail!("--discovery-endpoints must not contain empty endpoints");
        }
        if !domain.is_empty() {
            return Ok(Discovery::Srv {
                domain,
                service_name: text("discovery-srv-name"),
            });
        }
        match endpoints.is_empty() {
            true => Ok(Discovery::Static),
            false => Ok(Discovery::Service(Box::new(service(flags, endpoints)?))),
        }
    }
}

fn service(flags: &Flags, endpoints: Vec<String>) -> Result<Service> {
    let file = |name: &str| {
        let path = flags.string(name);
        (!path.is_empty()).then(|| Pem::File(path.into()))
    };
    let (cert, key) = (file("discovery-cert"), file("discovery-key"));
    if cert.is_some() != key.is_some() {
        bail!("both --discovery-cert and --discovery-key must be set, or neither");
    }
    Ok(Service {
        endpoints,
        token: flags.string("discovery-token").to_owned(),
        user: user(flags.string("discovery-user"), flags.string("discovery-password"))?,
        tls: ClientTls {
            ca: file("discovery-cacert"),
            cert: cert.zip(key),
            insecure: flags.bool("discovery-insecure-skip-tls-verify"),
            alpn: vec![alpn::H2.to_vec()],
            ..ClientTls::default()
        },
        speaks_tls: !flags.bool("discovery-insecure-transport"),
        dial_timeout: flags.duration("discovery-dial-timeout"),
        request_timeout: flags.duration("discovery-request-timeout"),
        keepalive: (
            flags.duration("discovery-keepalive-time"),
            flags.duration("discovery-keepalive-timeout"),
        ),
    })
}

/// A daemon has nobody to ask for a password.
fn user(user: &str, password: &str) -> Result<Option<(String, String)>> {
    Ok(match (user.split_once(':'), password) {
        _ if user.is_empty() => None,
        (Some((name, password)), "") => Some((name.to_owned(), password.to_owned())),
        (None, "") => {
            bail!("--discovery-user {user}: give its password behind a colon, or by --discovery-password")
        }
        (_, password) => Some((user.to_owned(), password.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Discovery> {
        let flags = crate::config::flags().parse(args.iter().map(Into::into));
        Discovery::from_flags(&flags.unwrap())
    }

    #[test]
    fn there_is_one_way_to_find_the_others() {
        assert!(matches!(read(&[]).unwrap(), Discovery::Static));
        let Discovery::Srv { domain, service_name } =
            read(&["--discovery-srv=example.org", "--discovery-srv-name=x"]).unwrap()
        else {
            panic!("SRV")
        };
        assert_eq!((domain.as_str(), service_name.as_str()), ("example.org", "x"));
        let endpoints = "--discovery-endpoints=http://a:1,b:2";
        let Discovery::Service(service) =
            read(&[endpoints, "--discovery-token=t", "--discovery-user=u:p"]).unwrap()
        else {
            panic!("a service")
        };
        assert_eq!(service.endpoints, ["http://a:1", "b:2"]);
        assert_eq!(service.user, Some(("u".to_owned(), "p".to_owned())));
        for (args, expected) in [
            (
                &["--discovery-srv=d", "--initial-cluster=a=http://b:1"][..],
                CONFLICT,
            ),
            (&["--discovery-srv=d", endpoints, "--discovery-token=t"], CONFLICT),
            (
                &[endpoints],
                "both --discovery-token and --discovery-endpoints must be set",
            ),
            (
                &["--discovery-token=t"],
                "both --discovery-token and --discovery-endpoints must be set",
            ),
            (
                &[endpoints, "--discovery-token=t", "--discovery-user=u"],
                "--discovery-user u: give its password behind a colon, or by --discovery-password",
            ),
            (
                &[endpoints, "--discovery-token=t", "--discovery-cert=c"],
                "both --discovery-cert and --discovery-key must be set, or neither",
            ),
        ] {
            let error = read(args).err().expect("it must be refused").to_string();
            assert_eq!(error, expected, "{args:?}");
        }
    }
}
