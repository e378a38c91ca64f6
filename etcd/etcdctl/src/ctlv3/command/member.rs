//! `member add|remove|update|list|promote`.

use etcd_api::etcdserverpb::cluster_client::ClusterClient;
use etcd_api::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest,
};

use super::{Ctl, Run, call, is_serializable, member_id, run};
use crate::cobra::{Command, Flag};
use crate::exit::Exit;
use crate::go::quote::quote;
use crate::printer::Reply;

const LIST_LONG: &str = "When --write-out is set to simple, this command prints out comma-separated member lists for each endpoint.
The items in the lists are ID, Status, Name, Peer Addrs, Client Addrs, Is Learner.
";
const PROMOTE_LONG: &str = "Promotes a non-voting learner member to a voting one in the cluster.\n";
const NO_ID: &str = "member ID is not provided";
const NO_URLS: &str = "member peer urls not provided";

pub fn command() -> Command<Run> {
    let urls = |usage| Flag::string("peer-urls", "", usage);
    let promote = "Promotes a non-voting member in the cluster";
    let subcommands = vec![
        Command::new(
            "add <memberName> [options]",
            "Adds a member into the cluster",
            run!(add),
        )
        .flags(vec![
            urls("comma separated peer URLs for the new member."),
            Flag::bool("learner", "indicates if the new member is raft learner"),
        ]),
        Command::new("list", "Lists all members in the cluster", run!(list))
            .long(LIST_LONG)
            .flags(vec![Flag::string(
                "consistency",
                "l",
                "Linearizable(l) or Serializable(s)",
            )]),
        Command::new("promote <memberID>", promote, run!(self::promote)).long(PROMOTE_LONG),
        Command::new(
            "remove <memberID>",
            "Removes a member from the cluster",
            run!(remove),
        ),
        Command::new(
            "update <memberID> [options]",
            "Updates a member in the cluster",
            run!(update),
        )
        .flags(vec![urls("comma separated peer URLs for the updated member.")]),
    ];
    Command::group("member <subcommand>", "Membership related commands", subcommands)
}

/// A change of the members, which is asked for once.
macro_rules! change {
    ($ctl:ident, $method:ident($request:ident), $path:literal) => {{
        let context = $ctl.context();
        call!(
            $ctl,
            context,
            NonRepeatable,
            ClusterClient.$method($request),
            $path
        )
    }};
}

fn peer_urls(ctl: &Ctl) -> Result<Vec<String>, Exit> {
    match ctl.flags.string("peer-urls") {
        "" => Err(Exit::bad_args(NO_URLS)),
        urls => Ok(urls.split(',').map(str::to_owned).collect()),
    }
}

fn id(ctl: &Ctl) -> Result<u64, Exit> {
    if ctl.args.len() != 1 {
        return Err(Exit::bad_args(NO_ID));
    }
    member_id(ctl.arg(0))
}

async fn add(ctl: &mut Ctl) -> Result<(), Exit> {
    check_name(&ctl.args)?;
    let request = MemberAddRequest {
        peer_ur_ls: peer_urls(ctl)?,
        is_learner: ctl.flags.bool("learner"),
    };
    let answer = change!(ctl, member_add(request), "/etcdserverpb.Cluster/MemberAdd");
    let settings = settings(ctl.arg(0), ctl.flags.string("peer-urls"), &answer);
    ctl.print(&Reply::MemberAdd(answer))?;
    if ctl.is_simple() {
        ctl.say(&settings)
    } else {
        Ok(())
    }
}

fn check_name(args: &[String]) -> Result<(), Exit> {
    match args.len() {
        0 => Err(Exit::bad_args("member name not provided")),
        1 => Ok(()),
        _ => {
            let urls = args.iter().filter(|arg| arg.to_lowercase().starts_with("http"));
            let hints = urls.map(|url| format!(", did you mean --peer-urls={url}"));
            Err(Exit::bad_args(format!(
                "too many arguments{}",
                hints.collect::<String>()
            )))
        }
    }
}

/// What the new member's environment must say.
fn settings(name: &str, peer_urls: &str, answer: &MemberAddResponse) -> String {
    let new_id = answer.member.as_ref().map_or(0, |member| member.id);
    let pairs = answer.members.iter().flat_map(|member| {
        let name = if member.id == new_id { name } else { &member.name };
        member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
    });
    let cluster = pairs.collect::<Vec<_>>().join(",");
    format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\nETCD_INITIAL_CLUSTER_STATE=\"existing\"",
        quote(name.as_bytes()),
        quote(cluster.as_bytes()),
        quote(peer_urls.as_bytes())
    )
}

async fn remove(ctl: &mut Ctl) -> Result<(), Exit> {
    let id = id(ctl)?;
    let request = MemberRemoveRequest { id };
    let answer = change!(ctl, member_remove(request), "/etcdserverpb.Cluster/MemberRemove");
    ctl.print(&Reply::MemberRemove(id, answer))
}

async fn update(ctl: &mut Ctl) -> Result<(), Exit> {
    let id = id(ctl)?;
    let request = MemberUpdateRequest {
        id,
        peer_ur_ls: peer_urls(ctl)?,
    };
    let answer = change!(ctl, member_update(request), "/etcdserverpb.Cluster/MemberUpdate");
    ctl.print(&Reply::MemberUpdate(id, answer))
}

async fn list(ctl: &mut Ctl) -> Result<(), Exit> {
    let serializable = is_serializable(ctl.flags.string("consistency"))?;
    let context = ctl.context();
    let client = ctl.client().await?;
    let answer = client
        .member_list(&context, !serializable)
        .await
        .map_err(Exit::error)?;
    ctl.print(&Reply::MemberList(answer))
}

async fn promote(ctl: &mut Ctl) -> Result<(), Exit> {
    let id = id(ctl)?;
    let request = MemberPromoteRequest { id };
    let answer = change!(
        ctl,
        member_promote(request),
        "/etcdserverpb.Cluster/MemberPromote"
    );
    ctl.print(&Reply::MemberPromote(id, answer))
}
