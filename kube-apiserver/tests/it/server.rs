//! One etcd and one kube-apiserver on free ports in their own directory, killed when dropped.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use component_base::tls::{ClientTls, Pem};
use free_port::free_port;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

const TOKEN: &str = "admin-token";
const START_DEADLINE: Duration = Duration::from_secs(30);

pub struct Cluster {
    dir: TempDir,
    etcd: Child,
    api: Child,
    etcd_port: u16,
    port: u16,
    tls: Arc<rustls::ClientConfig>,
}

pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

impl Cluster {
    pub async fn start() -> Result<Cluster> {
        let dir = TempDir::new()?;
        let (etcd_port, peer_port, port) = (free_port(), free_port(), free_port());
        let etcd = start_etcd(&dir, etcd_port, peer_port)?;
        write_files(&dir)?;
        let api = start_api(&dir, etcd_port, port)?;
        let ca = Pem::File(dir.path().join("tls.crt"));
        let tls = ClientTls {
            ca: Some(ca),
            alpn: vec![b"http/1.1".to_vec()],
            ..Default::default()
        }
        .load()?
        .current();
        let cluster = Cluster {
            dir,
            etcd,
            api,
            etcd_port,
            port,
            tls,
        };
        cluster.ready().await?;
        cluster.create_service_account().await?;
        Ok(cluster)
    }

    async fn ready(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let state = match self.call(Method::GET, "/readyz?verbose", None).await {
                Ok(answer) if answer.status == StatusCode::OK => return Ok(()),
                Ok(answer) => String::from_utf8_lossy(&answer.body).into_owned(),
                Err(error) => error.to_string(),
            };
            if start.elapsed() > START_DEADLINE {
                bail!("not ready: {state}\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// There is no controller manager here to make it.
    async fn create_service_account(&self) -> Result<()> {
        let account = r#"{"kind":"ServiceAccount","apiVersion":"v1","metadata":{"name":"default"}}"#;
        self.call(
            Method::POST,
            "/api/v1/namespaces/default/serviceaccounts",
            Some(account),
        )
        .await
        .map(drop)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("api.log")).unwrap_or_default()
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<&str>) -> Result<Answer> {
        self.call_with(method, path, "application/json", body).await
    }

    pub async fn call_with(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&str>,
    ) -> Result<Answer> {
        let response = self.open(method, path, content_type, body).await?;
        let (parts, incoming) = response.into_parts();
        Ok(Answer {
            status: parts.status,
            body: incoming.collect().await?.to_bytes(),
        })
    }

    /// The response while its body still comes.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&str>,
    ) -> Result<http::Response<Incoming>> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let name = rustls_pki_types::ServerName::try_from("127.0.0.1")?;
        let stream = tokio_rustls::TlsConnector::from(self.tls.clone())
            .connect(name, tcp)
            .await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1")
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", content_type)
            .body(Full::new(Bytes::from(body.unwrap_or_default().to_owned())))?;
        Ok(sender.send_request(request).await?)
    }

    /// kill -9, and the same server again on the same data.
    pub async fn restart_api(&mut self) -> Result<()> {
        self.api.kill()?;
        self.api.wait()?;
        self.api = start_api(&self.dir, self.etcd_port, self.port)?;
        self.ready().await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in [&mut self.api, &mut self.etcd] {
            // Gone already is as good.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn log_file(dir: &TempDir, name: &str) -> Result<Stdio> {
    Ok(fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.path().join(name))?
        .into())
}

fn start_etcd(dir: &TempDir, port: u16, peer_port: u16) -> Result<Child> {
    let binary =
        std::env::var_os("FERROKUBE_ETCD").map_or_else(|| PathBuf::from("/usr/bin/etcd"), PathBuf::from);
    let (client, peer) = (
        format!("http://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{peer_port}"),
    );
    Command::new(&binary)
        .arg(format!("--data-dir={}", dir.path().join("etcd").display()))
        .args([
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
        ])
        .args([
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
        ])
        .stdout(log_file(dir, "etcd.log")?)
        .stderr(log_file(dir, "etcd.log")?)
        .spawn()
        .with_context(|| format!("cannot start {}; set FERROKUBE_ETCD", binary.display()))
}

fn write_files(dir: &TempDir) -> Result<()> {
    let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let file = |name: &str| dir.path().join(name);
    fs::write(file("tls.crt"), certificate.cert.pem())?;
    fs::write(file("tls.key"), certificate.signing_key.serialize_pem())?;
    fs::write(file("sa.key"), rcgen::KeyPair::generate()?.serialize_pem())?;
    fs::write(file("tokens.csv"), format!("{TOKEN},admin,1,system:masters\n"))?;
    Ok(())
}

fn start_api(dir: &TempDir, etcd_port: u16, port: u16) -> Result<Child> {
    let file = |name: &str| dir.path().join(name).display().to_string();
    let child = Command::new(env!("CARGO_BIN_EXE_kube-apiserver"))
        .args([
            format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
            format!("--secure-port={port}"),
        ])
        .args([
            "--bind-address=127.0.0.1",
            "--authorization-mode=Node,RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
        ])
        .args([
            format!("--tls-cert-file={}", file("tls.crt")),
            format!("--tls-private-key-file={}", file("tls.key")),
        ])
        .args([
            format!("--service-account-key-file={}", file("sa.key")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
        ])
        .args([
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--token-auth-file={}", file("tokens.csv")),
        ])
        .stdout(log_file(dir, "api.log")?)
        .stderr(log_file(dir, "api.log")?)
        .spawn()?;
    Ok(child)
}
