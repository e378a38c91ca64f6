//! `member list|add|remove|update`.

use std::io::Write as _;

use super::run;
use crate::ctlv2::cli::{Call, Command};
use crate::ctlv2::http::{Client, Error, total_timeout};
use crate::ctlv2::members::{self, Member};
use crate::exit::Exit;
use crate::go::quote::quote;

const UPDATE_NEEDS: &str =
    "Provide an ID and a list of comma separated peerURL (0xabcd http://example.com,http://example1.com)";
const MORE: &str = "For more details, read the documentation at https://github.com/etcd-io/etcd/blob/master/Documentation/runtime-configuration.md#remove-a-member\n";

pub fn command() -> Command {
    let subcommands = vec![
        Command::new("list", "enumerate existing cluster members", " ", &[], run!(list)),
        Command::new(
            "add",
            "add a new member to the etcd cluster",
            "<name> <peerURL>",
            &[],
            run!(add),
        ),
        Command::new(
            "remove",
            "remove an existing member from the etcd cluster",
            "<memberID>",
            &[],
            run!(remove),
        ),
        Command::new(
            "update",
            "update an existing member in the etcd cluster",
            "<memberID> <peerURLs>",
            &[],
            run!(update),
        ),
    ];
    Command {
        name: "member",
        usage: "member add, remove and list subcommands",
        args_usage: "",
        description: "",
        flags: &[],
        subcommands,
        run: None,
    }
}

fn refuse(text: impl std::fmt::Display) -> Exit {
    eprintln!("{text}");
    Exit::silent(1)
}

fn say(text: &str) -> Result<(), Exit> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

async fn list(call: &Call) -> Result<(), Exit> {
    if !call.args.is_empty() {
        return Err(refuse("No arguments accepted"));
    }
    let mut client = Client::synced(call).await?;
    let context = total_timeout(call);
    let members = members::list(&mut client, &context).await.map_err(refuse)?;
    let failed = |error: Error| refuse(format!("Failed to get leader:  {error}"));
    let leader = members::leader(&mut client, &context).await.map_err(failed)?;
    members.iter().try_for_each(|member| say(&line(member, &leader)))
}

fn line(member: &Member, leader: &Member) -> String {
    let (id, peers) = (&member.id, member.peer_urls.join(","));
    if member.name.is_empty() {
        return format!("{id}[unstarted]: peerURLs={peers}");
    }
    let (name, clients, is_leader) = (&member.name, member.client_urls.join(","), *id == leader.id);
    format!("{id}: name={name} peerURLs={peers} clientURLs={clients} isLeader={is_leader}")
}

async fn add(call: &Call) -> Result<(), Exit> {
    let [name, url] = call.args.as_slice() else {
        return Err(refuse("Provide a name and a single member peerURL"));
    };
    let mut client = Client::synced(call).await?;
    let context = total_timeout(call);
    let added = members::add(&mut client, &context, url).await.map_err(refuse)?;
    say(&format!(
        "Added member named {name} with ID {} to cluster",
        added.id
    ))?;
    let members = members::list(&mut client, &context).await.map_err(refuse)?;
    let pairs = members.iter().flat_map(|member| {
        let name = if member.id == added.id { name } else { &member.name };
        member.peer_urls.iter().map(move |url| format!("{name}={url}"))
    });
    let cluster = pairs.collect::<Vec<_>>().join(",");
    say(&format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_CLUSTER_STATE=\"existing\"",
        quote(name.as_bytes()),
        quote(cluster.as_bytes())
    ))
}

async fn remove(call: &Call) -> Result<(), Exit> {
    let [id] = call.args.as_slice() else {
        return Err(refuse("Provide a single member ID"));
    };
    let mut client = Client::synced(call).await?;
    let context = total_timeout(call);
    let failed = |error: Error| refuse(format!("Error while verifying ID against known members: {error}"));
    let members = members::list(&mut client, &context).await.map_err(failed)?;
    for member in members.iter().filter(|member| member.name == *id) {
        eprintln!(
            "Found a member named {}; if this is correct, please use its ID, eg:\n\tetcdctl member remove {}",
            member.name, member.id
        );
        eprintln!("{MORE}");
    }
    if !members.iter().any(|member| member.id == *id) {
        return Err(refuse(format!(
            "Couldn't find a member in the cluster with an ID of {id}."
        )));
    }
    if let Err(error) = members::remove(&mut client, &context, id).await {
        // Without a line end, as the original.
        eprint!("Received an error trying to remove member {id}: {error}");
        return Err(Exit::silent(1));
    }
    say(&format!("Removed member {id} from cluster"))
}

async fn update(call: &Call) -> Result<(), Exit> {
    let [id, urls] = call.args.as_slice() else {
        return Err(refuse(UPDATE_NEEDS));
    };
    let mut client = Client::synced(call).await?;
    let urls: Vec<String> = urls.split(',').map(str::to_owned).collect();
    members::update(&mut client, &total_timeout(call), id, &urls)
        .await
        .map_err(refuse)?;
    say(&format!("Updated member with ID {id} in cluster"))
}
