//! Global flags, and what they make: the client's configuration and the printer.

use std::io::{self, Write as _};

use crate::client::{Auth, Client, Config, Context, Secure, discovery};
use crate::cobra::{Flag, Flags, Invocation, Kind};
use crate::exit::{Exit, code};
use crate::printer::{self, Printer, Reply};
use crate::terminal;

use super::environment;

pub fn flags() -> Vec<Flag> {
    let duration = |name, default, usage| Flag::new(Kind::Duration, name, default, usage);
    let on = |name, usage| Flag::new(Kind::Bool, name, "true", usage);
    vec![
        Flag::new(Kind::Strings, "endpoints", "127.0.0.1:2379", "gRPC endpoints"),
        Flag::bool("debug", "enable client-side debug logging"),
        Flag::string("write-out", "simple", "set the output format (fields, json, protobuf, simple, table)").short('w'),
        Flag::bool("hex", "print byte strings as hex encoded strings"),
        duration("dial-timeout", "2s", "dial timeout for client connections"),
        duration("command-timeout", "5s", "timeout for short running command (excluding dial timeout)"),
        duration("keepalive-time", "2s", "keepalive time for client connections"),
        duration("keepalive-timeout", "6s", "keepalive timeout for client connections"),
        Flag::int("max-request-bytes", "0", "client-side request send limit in bytes (if 0, it defaults to 2.0 MiB (2 * 1024 * 1024).)"),
        Flag::int("max-recv-bytes", "0", "client-side response receive limit in bytes (if 0, it defaults to \"math.MaxInt32\")"),
        on("insecure-transport", "disable transport security for client connections"),
        on("insecure-discovery", "accept insecure SRV records describing cluster endpoints"),
        Flag::bool("insecure-skip-tls-verify", "skip server certificate verification (CAUTION: this option should be enabled only for testing purposes)"),
        Flag::string("cert", "", "identify secure client using this TLS certificate file"),
        Flag::string("key", "", "identify secure client using this TLS key file"),
        Flag::string("cacert", "", "verify certificates of TLS-enabled secure servers using this CA bundle"),
        Flag::string("user", "", "username[:password] for authentication (prompt if password is not supplied)"),
        Flag::string("password", "", "password for authentication (if this option is used, --user option shouldn't include password)"),
        // 3.7's; 3.6 does not list it.
        Flag::string("auth-jwt-token", "", "JWT token used for authentication (if this option is used, --user and --password should not be set)").hidden(),
        Flag::string("discovery-srv", "", "domain name to query for SRV records describing cluster endpoints").short('d'),
        Flag::string("discovery-srv-name", "", "service name to query when using DNS discovery"),
    ]
}

/// One run of one command.
pub struct Ctl {
    pub flags: Flags,
    /// The words that are no flags.
    pub args: Vec<String>,
    /// The whole command line, program first.
    pub os_args: Vec<String>,
    inherited: Vec<&'static str>,
    /// Set together with the configuration, as upstream's.
    printer: Printer,
}

impl Ctl {
    pub fn new<R>(invocation: Invocation<'_, R>, os_args: Vec<String>) -> Self {
        Ctl {
            flags: invocation.flags,
            args: invocation.args,
            os_args,
            inherited: invocation.inherited,
            printer: Printer::simple(),
        }
    }

    /// The command's own deadline, from now on.
    pub fn context(&self) -> Context {
        Context::timeout(self.flags.duration("command-timeout"))
    }

    pub async fn client(&mut self) -> Result<Client, Exit> {
        let config = self.config().await?;
        connect(config).await
    }

    /// Environment, then flags; the password is asked for here.
    pub async fn config(&mut self) -> Result<Config, Exit> {
        self.config_with(&[]).await
    }

    /// `silent` names variables that the command reads by itself.
    pub async fn config_with(&mut self, silent: &[&'static str]) -> Result<Config, Exit> {
        let known: Vec<&str> = self.inherited.iter().chain(silent).copied().collect();
        environment::apply(&mut self.flags, &known)?;
        if self.flags.bool("debug") {
            self.print_settings();
        }
        let endpoints = self.endpoints().await?;
        let config = Config {
            endpoints,
            auth: self.auth()?,
            ..self.connection()?
        };
        self.set_printer()?;
        Ok(config)
    }

    fn print_settings(&self) {
        let mut names = self.inherited.clone();
        names.sort_unstable();
        for name in names {
            eprintln!("{}={}", environment::variable(name), self.flags.display(name));
        }
    }

    /// Everything but endpoints and user.
    pub fn connection(&self) -> Result<Config, Exit> {
        let bytes = |name| usize::try_from(self.flags.int(name)).unwrap_or_default();
        Ok(Config {
            endpoints: Vec::new(),
            dial_timeout: self.flags.duration("dial-timeout"),
            keepalive_time: self.flags.duration("keepalive-time"),
            keepalive_timeout: self.flags.duration("keepalive-timeout"),
            max_send_bytes: bytes("max-request-bytes"),
            max_receive_bytes: bytes("max-recv-bytes"),
            secure: self.secure()?,
            auth: None,
        })
    }

    pub fn secure(&self) -> Result<Secure, Exit> {
        let insecure_discovery = self.flags.bool("insecure-discovery");
        let server_name = if insecure_discovery {
            ""
        } else {
            self.flags.string("discovery-srv")
        };
        Ok(Secure {
            cert: self.path("cert")?,
            key: self.path("key")?,
            cacert: self.path("cacert")?,
            server_name: server_name.to_owned(),
            insecure_transport: self.flags.bool("insecure-transport"),
            insecure_skip_verify: self.flags.bool("insecure-skip-tls-verify"),
        })
    }

    fn path(&self, name: &str) -> Result<String, Exit> {
        let path = self.flags.string(name);
        if path.is_empty() && self.flags.changed(name) {
            return Err(Exit::bad_args(format!(
                "empty string is passed to --{name} option"
            )));
        }
        Ok(path.to_owned())
    }

    fn auth(&self) -> Result<Option<Auth>, Exit> {
        let token = self.flags.string("auth-jwt-token");
        if !token.is_empty() {
            let token = Some(token.to_owned());
            return Ok(Some(Auth {
                token,
                ..Default::default()
            }));
        }
        credentials(
            self.flags.string("user"),
            self.flags.string("password"),
            "Password: ",
        )
    }

    /// From DNS when a domain is given and has some, else from the flag.
    pub async fn endpoints(&self) -> Result<Vec<String>, Exit> {
        let discovered = self.discovered().await?;
        if !discovered.is_empty() {
            return Ok(discovered);
        }
        Ok(self
            .flags
            .strings("endpoints")
            .iter()
            .map(|endpoint| endpoint.trim().to_owned())
            .collect())
    }

    async fn discovered(&self) -> Result<Vec<String>, Exit> {
        let domain = self.flags.string("discovery-srv");
        if domain.is_empty() {
            return Ok(Vec::new());
        }
        let found = discovery::endpoints(domain, self.flags.string("discovery-srv-name")).await;
        let found = found.map_err(Exit::error)?;
        if self.flags.bool("insecure-discovery") {
            return Ok(found);
        }
        let (insecure, secure): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|url| url.starts_with("http://"));
        insecure
            .iter()
            .for_each(|url| eprintln!("ignoring discovered insecure endpoint {url:?}"));
        Ok(secure)
    }

    /// Endpoints of the flag, or of all members with `--cluster`.
    pub async fn cluster_endpoints(&self) -> Result<Vec<String>, Exit> {
        if !self.flags.bool("cluster") {
            return Ok(self.flags.strings("endpoints"));
        }
        // Without the user: the list needs none, and a password would be asked for twice.
        let config = Config {
            endpoints: self.endpoints().await?,
            ..self.connection()?
        };
        let client = Client::new(config).await.map_err(Exit::error)?;
        let members = client.member_list(&self.context(), true).await.map_err(|error| {
            Exit::error(format!(
                "failed to fetch endpoints from etcd cluster member list: {error}"
            ))
        })?;
        Ok(members
            .members
            .into_iter()
            .flat_map(|member| member.client_ur_ls)
            .collect())
    }

    fn set_printer(&mut self) -> Result<(), Exit> {
        let (format, hex) = (self.flags.string("write-out"), self.flags.bool("hex"));
        let unsupported = || Exit::new(code::BAD_FEATURE, "unsupported output format");
        self.printer = Printer::named(format, hex).ok_or_else(unsupported)?;
        Ok(())
    }

    pub fn printer(&mut self) -> &mut Printer {
        &mut self.printer
    }

    pub fn print(&self, reply: &Reply) -> Result<(), Exit> {
        let mut text = Vec::new();
        let result = self.printer.print(reply, &mut text);
        let mut stdout = io::stdout().lock();
        stdout.write_all(&text)?;
        stdout.flush()?;
        result.map_err(printer::Unsupported::exit)
    }

    pub fn say(&self, line: &str) -> Result<(), Exit> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(line.as_bytes())?;
        stdout.write_all(b"\n")?;
        Ok(stdout.flush()?)
    }

    pub fn is_simple(&self) -> bool {
        self.printer.is_simple()
    }

    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    pub fn command_timeout_is_set(&self) -> bool {
        self.flags.changed("command-timeout")
    }
}

pub async fn connect(config: Config) -> Result<Client, Exit> {
    use crate::client::Error;
    Client::new(config).await.map_err(|error| match error {
        // A configuration that cannot be used, told from a server that cannot be.
        Error::Text(_) => Exit::bad_args(error),
        _ => Exit::new(code::BAD_CONNECTION, error),
    })
}

/// `name:password` in one flag, or in two, or the password asked for.
pub fn credentials(user: &str, password: &str, prompt: &str) -> Result<Option<Auth>, Exit> {
    if user.is_empty() {
        return Ok(None);
    }
    let (username, password) = match user.split_once(':') {
        _ if !password.is_empty() => (user.to_owned(), password.to_owned()),
        Some((name, password)) => (name.to_owned(), password.to_owned()),
        None => (
            user.to_owned(),
            terminal::ask_password(prompt).map_err(Exit::error)?,
        ),
    };
    Ok(Some(Auth {
        username,
        password,
        token: None,
    }))
}

/// The word, or all of stdin when it is not given.
pub fn arg_or_stdin(args: &[String], index: usize) -> Option<Vec<u8>> {
    if let Some(word) = args.get(index) {
        return Some(word.clone().into_bytes());
    }
    let mut bytes = Vec::new();
    let read = io::Read::read_to_end(&mut io::stdin().lock(), &mut bytes);
    (read.is_ok() && !bytes.is_empty()).then_some(bytes)
}
