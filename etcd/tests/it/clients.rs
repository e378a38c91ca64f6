//! Client libraries of other languages, over TLS and with passwords. `etcd/tests/clients/run` installs them and runs these.

use std::path::{Path, PathBuf};
use std::process::Command;

use etcd_api::authpb::{Permission, permission::Type};
use etcd_api::etcdserverpb::auth_client::AuthClient;
use etcd_api::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
    AuthUserGrantRoleRequest,
};

use crate::members::Cluster;
use crate::tls::Pki;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pythons_etcd3_works_against_ours() {
    let library = libraries().join("python");
    let mut python = Command::new("python3");
    python.arg(script("tour.py")).env("PYTHONPATH", &library);
    takes_its_tour(&mut python, &library).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_etcd3_works_against_ours() {
    let library = libraries().join("node");
    takes_its_tour(
        Command::new("node").arg(script("tour.mjs")).arg(&library),
        &library,
    )
    .await;
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
}

fn libraries() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients")
}

async fn takes_its_tour(tour: &mut Command, library: &Path) {
    if !library.exists() {
        eprintln!(
            "skipped: there is no {}; etcd/tests/clients/run installs it",
            library.display()
        );
        return;
    }
    let cluster = Cluster::start(1, Some(Pki::new()), &["--bcrypt-cost=4"]).await;
    let node = &cluster.nodes[0];
    enable_auth(AuthClient::new(node.channel().await)).await;
    let ca = cluster.pki.as_ref().unwrap().path("ca.crt");
    let tour = tour.arg(node.tls_port.to_string()).arg(ca);
    let output = tour.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("has seen everything"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Root, and alice who may do as she likes below `app/`.
async fn enable_auth(mut auth: AuthClient<tonic::transport::Channel>) {
    let below_app = Permission {
        perm_type: Type::Readwrite as i32,
        key: "app/".into(),
        range_end: "app0".into(),
    };
    for (user, password, role) in [("root", "rootpw", "root"), ("alice", "alicepw", "app")] {
        let request = AuthUserAddRequest {
            name: user.into(),
            password: password.into(),
            ..AuthUserAddRequest::default()
        };
        auth.user_add(request).await.unwrap();
        let request = AuthRoleAddRequest { name: role.into() };
        auth.role_add(request).await.unwrap();
        let request = AuthUserGrantRoleRequest {
            user: user.into(),
            role: role.into(),
        };
        auth.user_grant_role(request).await.unwrap();
    }
    let request = AuthRoleGrantPermissionRequest {
        name: "app".into(),
        perm: Some(below_app),
    };
    auth.role_grant_permission(request).await.unwrap();
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
}
