//! `/healthz`, `/livez` and `/readyz` with upstream's bodies, and gates: readiness as values that drop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::{Response, StatusCode};
use parking_lot::RwLock;

use crate::http::{Body, text};

/// Holds the checks of one server. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    checks: Arc<RwLock<Vec<Check>>>,
}

type Probe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

#[derive(Clone)]
struct Check {
    name: &'static str,
    ready: bool,
    live: bool,
    probe: Probe,
}

#[derive(Clone, Copy, PartialEq)]
enum Endpoint {
    Healthz,
    Livez,
    Readyz,
}

/// Not ok until opened, and not ok again once dropped.
pub struct Gate {
    open: Arc<AtomicBool>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Begins with upstream's `ping`.
    pub fn new() -> Self {
        let health = Health {
            checks: Arc::default(),
        };
        health.add("ping", || Ok(()));
        health
    }

    /// Counts for healthz, livez and readyz.
    pub fn add(&self, name: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.insert(name, true, true, Arc::new(check));
    }

    /// Counts for readyz only.
    pub fn add_ready(
        &self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.insert(name, true, false, Arc::new(check));
    }

    /// Counts for livez and healthz only.
    pub fn add_live(
        &self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.insert(name, false, true, Arc::new(check));
    }

    /// A readiness check that fails until the gate is opened, and again after it was dropped.
    pub fn gate(&self, name: &'static str) -> Gate {
        let open = Arc::new(AtomicBool::new(false));
        let seen = open.clone();
        self.add_ready(name, move || {
            if seen.load(Ordering::Acquire) {
                Ok(())
            } else {
                Err("not finished".to_owned())
            }
        });
        Gate { open }
    }

    fn insert(&self, name: &'static str, ready: bool, live: bool, probe: Probe) {
        let mut checks = self.checks.write();
        checks.retain(|check| check.name != name);
        checks.push(Check {
            name,
            ready,
            live,
            probe,
        });
    }

    /// The first failing liveness check with its reason.
    pub fn failing_live(&self) -> Option<String> {
        self.failing(Endpoint::Livez)
    }

    /// The first failing readiness check with its reason.
    pub fn failing_ready(&self) -> Option<String> {
        self.failing(Endpoint::Readyz)
    }

    fn failing(&self, endpoint: Endpoint) -> Option<String> {
        self.of(endpoint).into_iter().find_map(|check| {
            (check.probe)()
                .err()
                .map(|reason| format!("{}: {reason}", check.name))
        })
    }

    fn of(&self, endpoint: Endpoint) -> Vec<Check> {
        let counts = |check: &&Check| match endpoint {
            Endpoint::Readyz => check.ready,
            Endpoint::Livez | Endpoint::Healthz => check.live,
        };
        self.checks.read().iter().filter(counts).cloned().collect()
    }

    /// The answer for a health path, None for any other path.
    pub fn respond(&self, path: &str, query: Option<&str>) -> Option<Response<Body>> {
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        let endpoint = Endpoint::parse(parts.next()?)?;
        let checks = self.of(endpoint);
        match parts.next().filter(|name| !name.is_empty()) {
            None => Some(report(endpoint, &checks, query.unwrap_or(""))),
            Some(name) => Some(single(&checks, name)),
        }
    }
}

impl Endpoint {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "healthz" => Some(Endpoint::Healthz),
            "livez" => Some(Endpoint::Livez),
            "readyz" => Some(Endpoint::Readyz),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Endpoint::Healthz => "healthz",
            Endpoint::Livez => "livez",
            Endpoint::Readyz => "readyz",
        }
    }
}

fn single(checks: &[Check], name: &str) -> Response<Body> {
    let Some(check) = checks.iter().find(|check| check.name == name) else {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    match (check.probe)() {
        Ok(()) => text(StatusCode::OK, "ok"),
        Err(reason) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("internal server error: {reason}\n"),
        ),
    }
}

/// Reasons of failing checks go to the log, never to the anonymous asker.
fn report(endpoint: Endpoint, checks: &[Check], query: &str) -> Response<Body> {
    let asked = Asked::parse(query);
    let mut lines = String::new();
    let mut failed = Vec::new();
    for check in checks {
        if asked.excludes(check.name) {
            lines.push_str(&format!("[+]{} excluded: ok\n", check.name));
        } else if let Err(reason) = (check.probe)() {
            lines.push_str(&format!("[-]{} failed: reason withheld\n", check.name));
            failed.push(format!("{}: {reason}", check.name));
        } else {
            lines.push_str(&format!("[+]{} ok\n", check.name));
        }
    }
    lines.push_str(&asked.unmatched(checks));
    let name = endpoint.name();
    if !failed.is_empty() {
        tracing::info!(endpoint = name, failed = %failed.join("; "), "Health check failed");
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("{lines}{name} check failed\n"),
        );
    }
    match asked.verbose {
        false => text(StatusCode::OK, "ok"),
        true => text(StatusCode::OK, &format!("{lines}{name} check passed\n")),
    }
}

/// What the query asks for: `?verbose`, `?exclude=name` (repeatable).
struct Asked<'a> {
    verbose: bool,
    exclude: Vec<&'a str>,
}

impl<'a> Asked<'a> {
    fn parse(query: &'a str) -> Self {
        let mut asked = Asked {
            verbose: false,
            exclude: Vec::new(),
        };
        for pair in query.split('&') {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("verbose", _) => asked.verbose = true,
                ("exclude", name) => asked.exclude.push(name),
                _ => {}
            }
        }
        asked
    }

    fn excludes(&self, name: &str) -> bool {
        self.exclude.contains(&name)
    }

    fn unmatched(&self, checks: &[Check]) -> String {
        let mut unknown: Vec<String> = self
            .exclude
            .iter()
            .filter(|name| !checks.iter().any(|check| check.name == **name))
            .map(|name| format!("{name:?}"))
            .collect();
        unknown.sort();
        unknown.dedup();
        match unknown.is_empty() {
            true => String::new(),
            false => format!(
                "warn: some health checks cannot be excluded: no matches for {}\n",
                unknown.join(",")
            ),
        }
    }
}

impl Gate {
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    pub fn close(&self) {
        self.open.store(false, Ordering::Release);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn ask(health: &Health, path: &str, query: &str) -> (u16, String) {
        let response = health.respond(path, Some(query)).unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn bodies_are_those_that_probes_and_people_know() {
        let health = Health::new();
        let gate = health.gate("poststarthook/start");
        assert_eq!(ask(&health, "/livez", "").await, (200, "ok".into()));
        assert_eq!(
            ask(&health, "/livez", "verbose").await,
            (200, "[+]ping ok\nlivez check passed\n".into())
        );
        let failed = "[+]ping ok\n[-]poststarthook/start failed: reason withheld\nreadyz check failed\n";
        assert_eq!(ask(&health, "/readyz", "").await, (500, failed.into()));
        let excluded = "[+]ping ok\n[+]poststarthook/start excluded: ok\nreadyz check passed\n";
        assert_eq!(
            ask(&health, "/readyz", "verbose&exclude=poststarthook/start").await,
            (200, excluded.into())
        );
        gate.open();
        assert_eq!(ask(&health, "/readyz", "").await, (200, "ok".into()));
        assert_eq!(
            ask(&health, "/readyz/poststarthook/start", "").await,
            (200, "ok".into())
        );
        drop(gate);
        assert_eq!(ask(&health, "/readyz/poststarthook/start", "").await.0, 500);
    }

    #[tokio::test]
    async fn an_exclusion_that_matches_nothing_is_named() {
        let (status, body) = ask(&Health::new(), "/healthz", "verbose=true&exclude=nope").await;
        assert_eq!(status, 200);
        assert!(body.contains("warn: some health checks cannot be excluded: no matches for \"nope\"\n"));
        assert!(body.ends_with("healthz check passed\n"));
    }

    #[test]
    fn other_paths_are_not_ours() {
        assert!(Health::new().respond("/healthzz", None).is_none());
        assert!(Health::new().respond("/api", None).is_none());
    }
}
