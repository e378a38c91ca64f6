//! Waiting for a condition, and telling what was there instead when it does not come.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Asks until the answer is `Ok`, at growing intervals. The error is what the last answer said.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if start.elapsed() > limit => {
                bail!(
                    "{what}: not after {:.1} s; last: {error:#}",
                    start.elapsed().as_secs_f64()
                );
            }
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

/// As [`until`], for a condition that is true or not; `state` tells what is there.
pub fn eventually(
    what: &str,
    limit: Duration,
    mut state: impl FnMut() -> Result<(bool, String)>,
) -> Result<()> {
    until(what, limit, || match state()? {
        (true, _) => Ok(()),
        (false, seen) => bail!("{seen}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_state_is_told() {
        let mut asked = 0;
        let error = eventually("three", Duration::from_millis(50), || {
            asked += 1;
            Ok((false, format!("asked {asked} times")))
        });
        let error = error.expect_err("never true").to_string();
        assert!(
            error.contains("three: not after") && error.contains(&format!("asked {asked} times")),
            "{error}"
        );
    }

    #[test]
    fn an_answer_ends_the_wait() {
        let mut left = 3;
        let answer = until("zero", Duration::from_secs(5), || {
            left -= 1;
            if left == 0 {
                Ok("done")
            } else {
                bail!("{left} left")
            }
        });
        assert_eq!(answer.expect("done"), "done");
    }
}
