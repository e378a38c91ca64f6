//! `--discovery-endpoints`: members of a new cluster write themselves down in another etcd, and wait there until enough have.
//!
//! Under `/_etcd/registry/TOKEN` an operator has put the cluster's size at `_config/size`; members put `NAME=URL,...` at `members/ID`. Who came
//! first is in: the order is that of the keys' creation.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use component_base::tls::ClientConfigHandle;
use etcd_api::etcdserverpb::auth_client::AuthClient;
use etcd_api::etcdserverpb::kv_client::KvClient;
use etcd_api::etcdserverpb::{AuthenticateRequest, PutRequest, RangeRequest};
use etcd_api::mvccpb::KeyValue;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};

use crate::config::Service;
use crate::membership::Membership;

const REGISTRY: &str = "/_etcd/registry";
/// Between two looks at who has come.
const WAIT: Duration = Duration::from_millis(500);
/// etcd's: attempts are further and further apart, up to 256 seconds.
const FIRST_BACKOFF: Duration = Duration::from_secs(2);
const MAX_BACKOFF: Duration = Duration::from_secs(256);

/// Adds this member; returns all of them, in the form of `--initial-cluster`, once they are complete.
pub async fn join(service: &Service, name: &str, advertised: &[String]) -> Result<String> {
    let own: Vec<String> = advertised.iter().map(|url| format!("{name}={url}")).collect();
    let own = own.join(",");
    let id = Membership::initial(&own, &service.token)?
        .local(name, advertised)?
        .id;
    let tls = service
        .tls
        .clone()
        .load()
        .context("--discovery-cacert, --discovery-cert")?;
    let meeting = Meeting {
        prefix: format!("{REGISTRY}/{}", service.token.trim_matches('/')),
        service,
        tls,
    };
    info!(token = service.token, endpoints = ?service.endpoints, "bootstrapping cluster using v3 discovery");
    meeting.join(&format!("{id:x}"), &own).await
}

struct Meeting<'a> {
    prefix: String,
    service: &'a Service,
    tls: ClientConfigHandle,
}

/// Those who have come, in the order in which they did.
struct Present {
    size: usize,
    members: Vec<KeyValue>,
}

impl Present {
    /// Whether there is room for the member of this key, or it is in already.
    fn admits(&self, key: &str) -> bool {
        let place = self
            .members
            .iter()
            .position(|member| member.key == key.as_bytes());
        place.unwrap_or(self.members.len()) < self.size
    }

    fn initial_cluster(&self) -> Option<String> {
        let complete = self.members.len() >= self.size;
        complete.then(|| {
            let first = self.members.iter().take(self.size);
            let first: Vec<_> = first
                .map(|member| String::from_utf8_lossy(&member.value))
                .collect();
            first.join(",")
        })
    }
}

impl Meeting<'_> {
    async fn join(&self, id: &str, own: &str) -> Result<String> {
        let key = format!("{}/members/{id}", self.prefix);
        self.present_for(&key).await?;
        self.again("register member itself", async |channel| {
            self.put(channel, &key, own).await
        })
        .await;
        info!(
            "memberKey" = key,
            "memberInfo" = own,
            "register member itself successfully"
        );
        loop {
            let present = self.present_for(&key).await?;
            if let Some(found) = present.initial_cluster() {
                info!(cluster = found, "discovery joined cluster successfully");
                return Ok(found);
            }
            tokio::time::sleep(WAIT).await;
        }
    }

    async fn present_for(&self, key: &str) -> Result<Present> {
        let (size, members) = self
            .again("cluster status check", async |channel| self.look(channel).await)
            .await;
        let size_key = format!("{}/_config/size", self.prefix);
        let Some(size) = size else {
            bail!(
                "discovery: size key not found: put the number of members at {size_key} in {}",
                self.service.endpoints.join(",")
            )
        };
        let parsed = std::str::from_utf8(&size.value)
            .ok()
            .and_then(|text| text.parse().ok());
        let Some(size) = parsed.filter(|size| *size > 0) else {
            bail!("discovery: size key is bad: {size_key} is no number of members")
        };
        let present = Present { size, members };
        match present.admits(key) {
            true => Ok(present),
            false => bail!(
                "discovery: cluster is full: {size} members have come under this token before; use a new --discovery-token for a new cluster"
            ),
        }
    }

    /// Until it succeeds: the service may come up together with us.
    async fn again<T>(&self, step: &str, attempt: impl AsyncFn(Session) -> Result<T, tonic::Status>) -> T {
        let mut backoff = FIRST_BACKOFF;
        loop {
            for endpoint in &self.service.endpoints {
                let tried = async {
                    let session = self.connect(endpoint).await?;
                    Ok::<T, anyhow::Error>(attempt(session).await?)
                };
                match tried.await {
                    Ok(done) => return done,
                    Err(error) => {
                        warn!(endpoint, reason = step, error = %format!("{error:#}"), "the discovery service gave no answer")
                    }
                }
            }
            warn!(reason = step, backoff = ?backoff, "retry connecting to discovery service");
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    async fn look(&self, mut session: Session) -> Result<(Option<KeyValue>, Vec<KeyValue>), tonic::Status> {
        let size = session.range(format!("{}/_config/size", self.prefix), "").await?;
        let members = format!("{}/members", self.prefix);
        // The range of a prefix: its last byte one higher.
        let mut found = session
            .range(members, &format!("{}/membert", self.prefix))
            .await?;
        found.retain(|member| member.value.contains(&b'='));
        found.sort_by_key(|member| member.create_revision);
        Ok((size.into_iter().next(), found))
    }

    async fn put(&self, mut session: Session, key: &str, value: &str) -> Result<(), tonic::Status> {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        let request = session.request(request)?;
        session.kv.put(request).await.map(|_| ())
    }

    async fn connect(&self, endpoint: &str) -> Result<Session> {
        let (speaks_tls, authority) = match endpoint.split_once("://") {
            Some((scheme, rest)) => (scheme == "https", rest),
            None => (self.service.speaks_tls, endpoint),
        };
        let authority = authority.trim_end_matches('/').to_owned();
        let (interval, timeout) = self.service.keepalive;
        let uri = format!("http://{authority}");
        let tls = speaks_tls.then(|| TlsConnector::from(self.tls.current()));
        let dial = tower::service_fn(move |_| dial(authority.clone(), tls.clone()));
        let endpoint = Endpoint::from_shared(uri)
            .context("--discovery-endpoints")?
            .connect_timeout(self.service.dial_timeout)
            .timeout(self.service.request_timeout)
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout);
        let connect = endpoint.connect_with_connector(dial);
        let channel = tokio::time::timeout(self.service.dial_timeout, connect)
            .await
            .context("--discovery-dial-timeout has passed")??;
        let mut session = Session {
            kv: KvClient::new(channel.clone()),
            token: None,
        };
        if let Some((name, password)) = &self.service.user {
            let request = AuthenticateRequest {
                name: name.clone(),
                password: password.clone(),
            };
            let answer = AuthClient::new(channel).authenticate(request).await?;
            session.token = Some(answer.into_inner().token);
        }
        Ok(session)
    }
}

struct Session {
    kv: KvClient<Channel>,
    token: Option<String>,
}

impl Session {
    fn request<T>(&self, message: T) -> Result<tonic::Request<T>, tonic::Status> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            let token = token.parse();
            let token = token.map_err(|_| tonic::Status::internal("a token that is no header"))?;
            request.metadata_mut().insert("token", token);
        }
        Ok(request)
    }

    async fn range(&mut self, key: String, end: &str) -> Result<Vec<KeyValue>, tonic::Status> {
        let request = RangeRequest {
            key: key.into(),
            range_end: end.to_owned().into(),
            ..Default::default()
        };
        let request = self.request(request)?;
        Ok(self.kv.range(request).await?.into_inner().kvs)
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn dial(authority: String, tls: Option<TlsConnector>) -> io::Result<TokioIo<Box<dyn Io>>> {
    let stream = TcpStream::connect(&authority).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(TokioIo::new(Box::new(stream)));
    };
    let host = authority
        .rsplit_once(':')
        .map_or(&authority[..], |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let session = tls.connect(name, stream).await;
    let session = session.map_err(|error| io::Error::other(component_base::tls::describe_refusal(&error)))?;
    Ok(TokioIo::new(Box::new(session)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_come_first_are_in() {
        let member = |key: &str, value: &str| KeyValue {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        let mut present = Present {
            size: 2,
            members: vec![member("a", "x=http://a:1")],
        };
        assert_eq!(present.initial_cluster(), None);
        assert!(present.admits("a") && present.admits("b"));
        present.members.push(member("b", "y=http://b:1"));
        present.members.push(member("c", "z=http://c:1"));
        assert!(present.admits("b") && !present.admits("c") && !present.admits("d"));
        assert_eq!(present.initial_cluster().unwrap(), "x=http://a:1,y=http://b:1");
    }
}
