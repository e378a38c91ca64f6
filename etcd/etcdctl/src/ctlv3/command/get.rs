//! `get`: a key or a range of keys.

use bytes::Bytes;
use etcd_api::etcdserverpb::RangeRequest;
use etcd_api::etcdserverpb::range_request::{SortOrder, SortTarget};

use super::{BOTH_PREFIX_AND_FROM_KEY, Ctl, Run, TOO_MANY_FOR_PREFIX, is_serializable, run};
use crate::client::kv::{OPEN_END, prefix_end};
use crate::cobra::{Command, Flag, Flags};
use crate::exit::{Exit, code};
use crate::printer::Reply;

pub fn command() -> Command<Run> {
    Command::new(
        "get [options] <key> [range_end]",
        "Gets the key or a range of keys",
        run!(get),
    )
    .flags(flags())
}

pub fn flags() -> Vec<Flag> {
    vec![
        Flag::string("consistency", "l", "Linearizable(l) or Serializable(s)"),
        Flag::string(
            "order",
            "",
            "Order of results; ASCEND or DESCEND (ASCEND by default)",
        ),
        Flag::string(
            "sort-by",
            "",
            "Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION",
        ),
        Flag::int("limit", "0", "Maximum number of results"),
        Flag::bool("prefix", "Get keys with matching prefix"),
        Flag::bool(
            "from-key",
            "Get keys that are greater than or equal to the given key using byte compare",
        ),
        Flag::int("rev", "0", "Specify the kv revision"),
        Flag::bool("keys-only", "Get only the keys"),
        Flag::bool("count-only", "Get only the count"),
        Flag::bool(
            "print-value-only",
            "Only write values when using the \"simple\" output format",
        ),
        Flag::int("min-create-rev", "0", "Minimum create revision"),
        Flag::int("max-create-rev", "0", "Maximum create revision"),
        Flag::int("min-mod-rev", "0", "Minimum modification revision"),
        Flag::int("max-mod-rev", "0", "Maximum modification revision"),
    ]
}

async fn get(ctl: &mut Ctl) -> Result<(), Exit> {
    let request = request(&ctl.flags, &ctl.args)?;
    let context = ctl.context();
    let client = ctl.client().await?;
    let answer = client.range(&context, request).await.map_err(Exit::error)?;
    if ctl.flags.bool("count-only") && !ctl.printer().is_fields() {
        return Err(Exit::bad_args("--count-only is only for `--write-out=fields`"));
    }
    if ctl.flags.bool("print-value-only") {
        if !ctl.is_simple() {
            return Err(Exit::bad_args(
                "print-value-only is only for `--write-out=simple`",
            ));
        }
        ctl.printer().value_only = true;
    }
    ctl.print(&Reply::Get(answer))
}

pub fn request(flags: &Flags, args: &[String]) -> Result<RangeRequest, Exit> {
    let Some(key) = args.first() else {
        return Err(Exit::bad_args(
            "get command needs one argument as key and an optional argument as range_end",
        ));
    };
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    if prefix && from_key {
        return Err(Exit::bad_args(BOTH_PREFIX_AND_FROM_KEY));
    }
    if flags.bool("keys-only") && flags.bool("count-only") {
        return Err(Exit::bad_args(
            "`--keys-only` and `--count-only` cannot be set at the same time, choose one",
        ));
    }
    let serializable = is_serializable(flags.string("consistency"))?;
    if args.len() > 1 && (prefix || from_key) {
        return Err(Exit::bad_args(TOO_MANY_FOR_PREFIX));
    }
    let (sort_order, sort_target) = sort(flags)?;
    let (key, range_end) = range(key, args.get(1), prefix, from_key);
    let (min_create_revision, max_create_revision) = bounds(flags, "create-rev", "CreateRev")?;
    let (min_mod_revision, max_mod_revision) = bounds(flags, "mod-rev", "ModRev")?;
    Ok(RangeRequest {
        key,
        range_end,
        limit: flags.int("limit"),
        revision: flags.int("rev").max(0),
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        serializable,
        keys_only: flags.bool("keys-only"),
        count_only: flags.bool("count-only"),
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    })
}

/// Key and end; the empty key stands for the first when a range begins with it.
pub fn range(key: &str, end: Option<&String>, prefix: bool, from_key: bool) -> (Bytes, Bytes) {
    let key = Bytes::from(key.to_owned());
    if (prefix || from_key) && key.is_empty() {
        return (Bytes::from_static(b"\0"), Bytes::from_static(OPEN_END));
    }
    let end = match end {
        _ if prefix => prefix_end(&key),
        _ if from_key => Bytes::from_static(OPEN_END),
        Some(end) => Bytes::from(end.clone()),
        None => Bytes::new(),
    };
    (key, end)
}

fn sort(flags: &Flags) -> Result<(SortOrder, SortTarget), Exit> {
    let (order, by) = (flags.string("order"), flags.string("sort-by"));
    let sort_order = match order.to_uppercase().as_str() {
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        "" => SortOrder::None,
        _ => return Err(Exit::new(code::BAD_FEATURE, format!("bad sort order {order}"))),
    };
    let sort_target = match by.to_uppercase().as_str() {
        "CREATE" => SortTarget::Create,
        "KEY" | "" => SortTarget::Key,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(Exit::new(code::BAD_FEATURE, format!("bad sort target {by}"))),
    };
    // That is how the server reads keys; asking for it would make it read all before the limit.
    if sort_target == SortTarget::Key && sort_order == SortOrder::Ascend {
        return Ok((SortOrder::None, sort_target));
    }
    Ok((sort_order, sort_target))
}

/// `--min-...` and `--max-...`; negative ones are none.
fn bounds(flags: &Flags, name: &str, upstream: &str) -> Result<(i64, i64), Exit> {
    let min = flags.int(&format!("min-{name}"));
    let max = flags.int(&format!("max-{name}"));
    if max > 0 && min > max {
        let text = format!("getMin{upstream}(={min}) > getMax{upstream}(={max})");
        return Err(Exit::new(code::BAD_FEATURE, text));
    }
    Ok((min.max(0), max.max(0)))
}
