//! The highest rate at which something still works. The balancer's bench shares this file.

/// One trial.
pub(crate) trait Trial {
    /// The rate that was tried.
    fn rate(&self) -> f64;
    /// Whether it worked.
    fn is_carried(&self) -> bool;
}

/// The best trial that worked and the lowest that did not, at most `precision` of its rate apart:
/// twice the rate until it fails, then halves of what is left. A failure counts when it comes twice,
/// since a machine has other things to do now and then.
///
/// # Errors
///
/// Those of a trial that could not be made.
pub(crate) fn highest<T: Trial, E>(
    first: f64,
    precision: f64,
    mut trial: impl FnMut(f64) -> Result<T, E>,
) -> Result<(Option<T>, T), E> {
    let mut twice = |rate: f64| {
        let tried = trial(rate)?;
        if tried.is_carried() { Ok(tried) } else { trial(rate) }
    };
    let (mut best, mut rate) = (None, first);
    let mut failed = loop {
        let tried = twice(rate)?;
        if !tried.is_carried() {
            break tried;
        }
        best = Some(tried);
        rate *= 2.0;
    };
    loop {
        let low = best.as_ref().map_or(0.0, Trial::rate);
        if failed.rate() - low <= failed.rate() * precision {
            return Ok((best, failed));
        }
        let tried = twice((low + failed.rate()) / 2.0)?;
        if tried.is_carried() {
            best = Some(tried);
        } else {
            failed = tried;
        }
    }
}
