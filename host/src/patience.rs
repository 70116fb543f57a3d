//! How often to try again.

use std::time::Duration;
use tokio::time::Instant;

/// The longer it is waited, the less often it is looked, and the sooner it is seen in proportion: on a slow machine a look
/// takes its time from what is waited for.
const PART: u32 = 32;

/// How long to pause before the next look at what is waited for since `begin`: the same part of the time waited so far,
/// within limits.
pub(crate) fn pause(begin: Instant, least: Duration, most: Duration) -> Duration {
    (begin.elapsed() / PART).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_grows_with_the_time_waited() {
        let begin = Instant::now();
        let next = || pause(begin, Duration::from_millis(2), Duration::from_millis(100)).as_millis();
        let mut looks = Vec::new();
        for seconds in [0, 1, 9] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            looks.push(next());
        }
        assert_eq!(looks, [2, 31, 100]);
    }
}
