//! `put`: one key.

use etcd_api::etcdserverpb::PutRequest;

use super::{Ctl, Run, lease_id, run};
use crate::cobra::{Command, Flag, Flags};
use crate::ctlv3::global::arg_or_stdin;
use crate::exit::Exit;
use crate::printer::Reply;

const LONG: &str = "
Puts the given key into the store.

When <value> begins with '-', <value> is interpreted as a flag.
Insert '--' for workaround:

$ put <key> -- <value>
$ put -- <key> <value>

If <value> isn't given as a command line argument and '--ignore-value' is not specified,
this command tries to read the value from standard input.

If <lease> isn't given as a command line argument and '--ignore-lease' is not specified,
this command tries to read the value from standard input.

For example,
$ cat file | put <key>
will store the content of the file to <key>.
";
const NEEDS: &str = "put command needs 1 argument and input from stdin or 2 arguments";

pub fn command() -> Command<Run> {
    let usage = "put [options] <key> <value> (<value> can also be given from stdin)";
    Command::new(usage, "Puts the given key into the store", run!(put))
        .long(LONG)
        .flags(flags())
}

pub fn flags() -> Vec<Flag> {
    vec![
        Flag::string("lease", "0", "lease ID (in hexadecimal) to attach to the key"),
        Flag::bool(
            "prev-kv",
            "return the previous key-value pair before modification",
        ),
        Flag::bool("ignore-value", "updates the key using its current value"),
        Flag::bool("ignore-lease", "updates the key using its current lease"),
    ]
}

async fn put(ctl: &mut Ctl) -> Result<(), Exit> {
    let request = request(&ctl.flags, &ctl.args)?;
    let context = ctl.context();
    let client = ctl.client().await?;
    let answer = client.put(&context, request).await.map_err(Exit::error)?;
    ctl.print(&Reply::Put(answer))
}

pub fn request(flags: &Flags, args: &[String]) -> Result<PutRequest, Exit> {
    let key = args.first().ok_or_else(|| Exit::bad_args(NEEDS))?;
    let ignore_value = flags.bool("ignore-value");
    if ignore_value && args.len() > 1 {
        return Err(Exit::bad_args(
            "put command needs only 1 argument when 'ignore-value' is set",
        ));
    }
    let value = match ignore_value {
        true => Vec::new(),
        false => arg_or_stdin(args, 1).ok_or_else(|| Exit::bad_args(NEEDS))?,
    };
    Ok(PutRequest {
        key: key.clone().into(),
        value: value.into(),
        lease: lease_id(flags.string("lease"), "lease ID")?,
        prev_kv: flags.bool("prev-kv"),
        ignore_value,
        ignore_lease: flags.bool("ignore-lease"),
    })
}
