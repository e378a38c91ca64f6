//! `cluster-health`: asks every member itself.

use std::io::Write as _;
use std::time::Duration;

use serde::Deserialize;

use super::run;
use crate::client::Context;
use crate::ctlv2::cli::{Call, Command, Flag, Kind, flag};
use crate::ctlv2::http::{Client, code};
use crate::ctlv2::members::{self, Member};
use crate::exit::Exit;
use crate::fetch::{self, Request};

const FLAGS: &[Flag] = &[flag(
    Kind::Bool,
    &["forever", "f"],
    "",
    "forever check the health every 10 second until CTRL+C",
)];
const AGAIN_AFTER: Duration = Duration::from_secs(10);

pub fn command() -> Command {
    Command::new(
        "cluster-health",
        "check the health of the etcd cluster",
        " ",
        FLAGS,
        run!(cluster_health),
    )
}

/// A string before etcd 3.4, which says it in text still; a boolean in between.
#[derive(Deserialize)]
#[serde(untagged)]
enum Health {
    Text { health: String },
    Bool { health: bool },
}

async fn cluster_health(call: &Call) -> Result<(), Exit> {
    let mut client = Client::new(call).await?;
    client.tell_endpoints(", ");
    let members = match members::list(&mut client, &Context::background()).await {
        Ok(members) => members,
        Err(error) => {
            say("cluster may be unhealthy: failed to list members")?;
            return Err(error.exit(code::SERVER_ERROR));
        }
    };
    if !call.bool("forever") {
        let healthy = check(&client, &members).await?;
        return if healthy {
            Ok(())
        } else {
            Err(Exit::silent(code::CLUSTER_NOT_HEALTHY))
        };
    }
    tokio::select! {
        result = check_forever(&client, &members) => result,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn check_forever(client: &Client, members: &[Member]) -> Result<(), Exit> {
    loop {
        check(client, members).await?;
        say("\nnext check after 10 second...\n")?;
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

fn say(text: &str) -> Result<(), Exit> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Whether all are healthy.
async fn check(client: &Client, members: &[Member]) -> Result<bool, Exit> {
    let mut healthy = 0;
    for member in members {
        if member.client_urls.is_empty() {
            say(&format!(
                "member {} is unreachable: no available published client urls",
                member.id
            ))?;
        } else if check_member(client, member).await? {
            healthy += 1;
        }
    }
    say(match healthy {
        count if count == members.len() => "cluster is healthy",
        0 => "cluster is unavailable",
        _ => "cluster is degraded",
    })?;
    Ok(healthy == members.len())
}

async fn check_member(client: &Client, member: &Member) -> Result<bool, Exit> {
    let id = &member.id;
    for url in &member.client_urls {
        match ask(client, url).await {
            Err(error) => say(&format!(
                "failed to check the health of member {id} on {url}: {error}"
            ))?,
            Ok(true) => {
                say(&format!("member {id} is healthy: got healthy result from {url}"))?;
                return Ok(true);
            }
            Ok(false) => {
                say(&format!(
                    "member {id} is unhealthy: got unhealthy result from {url}"
                ))?;
                return Ok(false);
            }
        }
    }
    say(&format!(
        "member {id} is unreachable: [{}] are all unreachable",
        member.client_urls.join(" ")
    ))?;
    Ok(false)
}

async fn ask(client: &Client, url: &str) -> Result<bool, String> {
    let address = format!("{url}/health");
    let answer = fetch::send(&Request::get(address.clone()), client.tls()).await;
    // Go's client names the request in its errors.
    let answer = answer.map_err(|error| format!("Get \"{address}\": {error}"))?;
    match serde_json::from_slice(&answer.body) {
        Ok(Health::Text { health }) => Ok(health == "true"),
        Ok(Health::Bool { health }) => Ok(health),
        Err(error) => Err(error.to_string()),
    }
}
