//! Byte counts as `humanize.Bytes` writes them: `20 kB`, `2.1 GB`.

const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

pub fn bytes(count: u64) -> String {
    if count < 10 {
        return format!("{count} B");
    }
    let exponent = count.ilog(1000) as usize;
    let scaled = (count as f64 / 1000f64.powi(exponent as i32) * 10.0 + 0.5).floor() / 10.0;
    // 1000^6 is the greatest power in 64 bits, so the index holds.
    let unit = UNITS[exponent];
    if scaled < 10.0 {
        format!("{scaled:.1} {unit}")
    } else {
        format!("{scaled:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn counts_read_as_the_original_writes_them() {
        for (count, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (20480, "20 kB"),
            (2_147_483_648, "2.1 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
