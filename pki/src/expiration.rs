//! `pki check-expiration`: kubeadm's table.

use std::path::Path;

use anyhow::Result;
use component_base::flags::{FlagSet, Flags};
use component_base::tls::{self, Certificate, Pem};
use time::OffsetDateTime;

use crate::kubeconfig::Credentials;
use crate::profiles::{AUTHORITIES, Home, KUBECONFIGS, PROFILES};
use crate::settings::{self, read_directories};
use crate::store;

pub fn flags() -> FlagSet {
    settings::directories(FlagSet::plain(
        "pki check-expiration",
        "Lists when certificates expire. Exit code 1 when one has.",
    ))
}

pub fn run(flags: &Flags) -> Result<bool> {
    let (cert_dir, kubeconfig_dir, kubelet_dir) = read_directories(flags);
    let external = |authority: &str| {
        let path = AUTHORITIES
            .iter()
            .find(|row| row.name == authority)
            .map_or("ca", |row| row.path);
        yes_no(!store::key(&cert_dir.join(path)).exists())
    };
    let mut leaves = vec![
        [
            "CERTIFICATE",
            "EXPIRES",
            "RESIDUAL TIME",
            "CERTIFICATE AUTHORITY",
            "EXTERNALLY MANAGED",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut good = true;
    for row in KUBECONFIGS {
        let end =
            Credentials::read(&kubeconfig_dir.join(row.file)).and_then(|credentials| credentials.not_after());
        leaves.push(line(row.file, end, &["ca", external("ca")], &mut good));
    }
    for row in PROFILES {
        let home = if row.home == Home::KubeletDir {
            &kubelet_dir
        } else {
            &cert_dir
        };
        leaves.push(line(
            row.name,
            end_of(&home.join(row.path)),
            &[row.authority, external(row.authority)],
            &mut good,
        ));
    }
    let mut authorities = vec![
        [
            "CERTIFICATE AUTHORITY",
            "EXPIRES",
            "RESIDUAL TIME",
            "EXTERNALLY MANAGED",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for row in AUTHORITIES {
        authorities.push(line(
            row.name,
            end_of(&cert_dir.join(row.path)),
            &[external(row.name)],
            &mut good,
        ));
    }
    print!("{}\n{}", table(&leaves), table(&authorities));
    Ok(good)
}

fn yes_no(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

fn end_of(base: &Path) -> Result<OffsetDateTime> {
    let chain = tls::load_certs(&Pem::File(store::crt(base)))?;
    Ok(Certificate::parse(&chain[0])?.not_after())
}

fn line(name: &str, end: Result<OffsetDateTime>, rest: &[&str], good: &mut bool) -> Vec<String> {
    let Ok(end) = end else {
        return vec![format!("!MISSING! {name}")];
    };
    let left = (end - OffsetDateTime::now_utc()).whole_seconds();
    *good &= left > 0;
    let mut cells = vec![name.to_owned(), date(end), human(left)];
    cells.extend(rest.iter().map(ToString::to_string));
    cells
}

/// Go's `Jan 02, 2006 15:04 MST`.
fn date(end: OffsetDateTime) -> String {
    let month = end.month().to_string();
    format!(
        "{} {:02}, {} {:02}:{:02} UTC",
        &month[..3],
        end.day(),
        end.year(),
        end.hour(),
        end.minute()
    )
}

/// As apimachinery's HumanDuration, in the ranges that certificates have.
fn human(seconds: i64) -> String {
    let (hours, days) = (seconds / 3600, seconds / 86_400);
    match seconds {
        ..=0 => "<invalid>".to_owned(),
        1..120 => format!("{seconds}s"),
        120..10_800 => format!("{}m", seconds / 60),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 && days % 365 != 0 => format!("{}y{}d", days / 365, days % 365),
        _ => format!("{}y", days / 365),
    }
}

/// Columns three blanks apart.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter(|row| row.len() > 1)
            .filter_map(|row| row.get(column))
            .map(|cell| cell.len())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        out.push_str(cells.join("   ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_kubeadm_writes_them() {
        assert_eq!(human(364 * 86_400 + 5), "364d");
        assert_eq!(human(3650 * 86_400), "10y");
        assert_eq!(human(800 * 86_400), "2y70d");
        assert_eq!(human(-1), "<invalid>");
        assert_eq!(
            date(OffsetDateTime::from_unix_timestamp(1_609_371_360).unwrap()),
            "Dec 30, 2020 23:36 UTC"
        );
    }
}
