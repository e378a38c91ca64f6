//! `completion`: scripts that make a shell ask this program what may follow.

use super::{Ctl, Run, run};
use crate::cobra::Command;
use crate::exit::Exit;

const LONG: &str = "To load completions:

Bash:

  $ source <(etcdctl completion bash)

  # For each session, once:
  $ etcdctl completion bash > /etc/bash_completion.d/etcdctl

Zsh:

  # For each session, once; the shell needs `autoload -U compinit; compinit`:
  $ etcdctl completion zsh > \"${fpath[1]}/_etcdctl\"

fish:

  $ etcdctl completion fish | source

  # For each session, once:
  $ etcdctl completion fish > ~/.config/fish/completions/etcdctl.fish

PowerShell:

  PS> etcdctl completion powershell | Out-String | Invoke-Expression
";

const BASH: &str = r#"# bash completion for etcdctl
_etcdctl() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case "$line" in
            :*) ;;
            *) COMPREPLY+=("$line") ;;
        esac
    done < <("${COMP_WORDS[0]}" __completeNoDesc "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _etcdctl etcdctl
"#;

const ZSH: &str = r#"#compdef etcdctl
compdef _etcdctl etcdctl
_etcdctl() {
    local line
    local -a found
    while IFS= read -r line; do
        case "$line" in
            :*) ;;
            *) line="${line//:/\\:}"; found+=("${line/$'\t'/:}") ;;
        esac
    done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    _describe etcdctl found
}
if [ "$funcstack[1]" = "_etcdctl" ]; then
    _etcdctl
fi
"#;

const FISH: &str = r#"# fish completion for etcdctl
function __etcdctl_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete $words[2..-1] 2>/dev/null | string match -v -r '^:'
end
complete -c etcdctl -f -a '(__etcdctl_complete)'
"#;

const POWERSHELL: &str = r#"# powershell completion for etcdctl
Register-ArgumentCompleter -Native -CommandName etcdctl -ScriptBlock {
    param($word, $ast, $position)
    $words = @($ast.CommandElements | ForEach-Object { "$_" })
    if ($word -eq "") { $words += '""' }
    $rest = $words[1..($words.Length - 1)]
    & $words[0] __complete @rest 2>$null | Where-Object { $_ -notmatch "^:" } | ForEach-Object {
        $name, $text = $_ -split "`t", 2
        if (-not $text) { $text = $name }
        [System.Management.Automation.CompletionResult]::new($name, $name, "ParameterValue", $text)
    }
}
"#;

/// In the order of the usage line.
const SHELLS: [(&str, &str); 4] = [
    ("bash", BASH),
    ("zsh", ZSH),
    ("fish", FISH),
    ("powershell", POWERSHELL),
];

pub fn command() -> Command<Run> {
    Command::new(
        "completion [bash|zsh|fish|powershell]",
        "Generate completion script",
        run!(completion),
    )
    .long(LONG)
    .arguments(&["bash", "zsh", "fish", "powershell"])
}

async fn completion(ctl: &mut Ctl) -> Result<(), Exit> {
    let [shell] = &ctl.args[..] else {
        return Err(Exit::bad_args(format!(
            "accepts 1 arg(s), received {}",
            ctl.args.len()
        )));
    };
    match SHELLS.iter().find(|(name, _)| name == shell) {
        Some((_, script)) => ctl.say(script.trim_end()),
        None => Err(Exit::bad_args(format!(
            "invalid argument {shell:?} for \"etcdctl completion\""
        ))),
    }
}
