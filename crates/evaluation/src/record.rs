//! What was seen of a run.

/// What an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Balancer,
    Proxy,
    Store,
    Manager,
    /// The load's own processes.
    Callers,
    Callees,
}

/// One instance in one interval, usually a second.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// End of the interval, seconds since the first call.
    pub at_s: f64,
    pub part: Part,
    pub instance: String,
    /// A word of the instance's life, as in `in service`.
    pub state: String,
    /// Of one core; `None`: unknown.
    pub cpu_percent: Option<f64>,
    pub received_bytes_per_s: Option<f64>,
    pub sent_bytes_per_s: Option<f64>,
    pub calls_per_s: f64,
    /// Server transactions at the end of the interval.
    pub transactions: u64,
    /// Of the membership that it works with.
    pub generation: String,
    pub store_queries_per_s: f64,
}

/// The cloud and its callers in one interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moment {
    pub at_s: f64,
    /// What the plan asks for.
    pub wanted_cps: f64,
    /// Proxies in service.
    pub in_service: u32,
    pub calls: Calls,
}

/// Totals of the callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    pub made: u64,
    pub succeeded: u64,
    pub failed: u64,
    /// Cut off because the run was stopped.
    pub unfinished: u64,
    /// Messages that the generator itself lost: its fault and not the cloud's.
    pub own_drops: u64,
    /// Calls that it started late.
    pub own_late: u64,
}

/// The manager changed its mind about the number of proxies.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub at_s: f64,
    pub before: u32,
    pub desired: u32,
    /// The tier's load that it saw.
    pub load_cps: f64,
    pub reason: String,
}

impl Decision {
    pub(crate) fn is_launch(&self) -> bool {
        self.desired > self.before
    }
}

/// A failed call.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub at_s: f64,
    pub unix_ms: u64,
    pub call_id: String,
    pub expected: String,
    pub came: String,
    /// What the journal has nearest to it, and how long after the failure (negative: before).
    pub nearest: Option<(f64, String)>,
}

/// What the manager was told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Calls per second that one proxy counts for.
    pub capacity_each: f64,
    /// The one threshold of the paper's policy, as a share of capacity; `None` for other policies.
    pub threshold: Option<f64>,
}

/// One run of the experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// How much faster than the paper's it was played.
    pub time_scale: f64,
    /// Between two samples of an instance, seconds.
    pub sample_interval_s: f64,
    pub policy: Policy,
    /// One line below the titles of the figures.
    pub caption: String,
    /// How it was played, for the report: what, and its value.
    pub setting: Vec<(String, String)>,
    /// The load asked for, as a line: seconds and calls per second. Where it jumps, both ends.
    pub plan: Vec<(f64, f64)>,
    /// In the order of time, as all that follow.
    pub samples: Vec<Sample>,
    pub moments: Vec<Moment>,
    pub decisions: Vec<Decision>,
    pub failures: Vec<Failure>,
    /// At the end.
    pub calls: Calls,
    /// It was ended before its plan was.
    pub is_cut_short: bool,
}

impl Run {
    /// Seconds of the wall as minutes of the experiment.
    pub(crate) fn minutes(&self, at_s: f64) -> f64 {
        at_s * self.time_scale / 60.0
    }

    /// Seconds of the wall as seconds of the experiment.
    pub(crate) fn seconds(&self, wall_s: f64) -> f64 {
        wall_s * self.time_scale
    }

    /// A minute of the experiment in seconds of the wall; not so short that it holds few samples.
    pub(crate) fn minute_s(&self) -> f64 {
        (60.0 / self.time_scale).max(5.0 * self.sample_interval_s)
    }

    pub(crate) fn duration_s(&self) -> f64 {
        self.moments.last().map_or(0.0, |moment| moment.at_s)
    }

    /// Instances of these parts with their samples, in the order of their names.
    pub(crate) fn instances(&self, parts: &[Part]) -> Vec<(Part, &str, Vec<&Sample>)> {
        let mut instances: Vec<(Part, &str, Vec<&Sample>)> = Vec::new();
        for sample in self.samples.iter().filter(|sample| parts.contains(&sample.part)) {
            match instances.iter_mut().find(|(_, name, _)| *name == sample.instance) {
                Some((_, _, samples)) => samples.push(sample),
                None => instances.push((sample.part, &sample.instance, vec![sample])),
            }
        }
        instances.sort_by_key(|(part, name, _)| (*part, *name));
        instances
    }
}

impl Sample {
    pub(crate) fn is_in_service(&self) -> bool {
        self.state == "in service"
    }

    /// In and out together.
    pub(crate) fn network_bytes_per_s(&self) -> Option<f64> {
        Some(self.received_bytes_per_s? + self.sent_bytes_per_s?)
    }
}

#[cfg(test)]
pub(crate) use tests::run_of_a_test;

#[cfg(test)]
mod tests;
