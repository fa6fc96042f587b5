//! What is told of a run: time, load, proxies in service, what happens, and why.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::mem::Discriminant;

use fleet::{InstanceId, Membership, Tier};
use scaling::{Action, Plan, Reason};

use crate::manager::Done;
use crate::world::World;

/// Lines kept; what a longer story has before is left out.
const LINES_MAX: usize = 2_000;

#[derive(Default)]
pub(crate) struct Story {
    lines: VecDeque<String>,
    left_out: usize,
    in_service: u32,
    told: BTreeMap<Tier, (u32, Discriminant<Reason>)>,
    owners: Vec<(InstanceId, u16)>,
    failures: BTreeMap<String, String>,
}

impl Story {
    pub(crate) fn tell(&mut self, world: &World, what: &str, text: &str) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
            self.left_out += 1;
        }
        let (at_s, load) = (world.elapsed_s(), world.offered.to_string());
        let in_service = self.in_service;
        self.lines.push_back(format!("{at_s:>7} s {load:>10}  {in_service:>2}  {what:<9} {text}"));
    }

    /// A decision is told when it changes something, or when it would and may not.
    pub(crate) fn tell_decisions(&mut self, world: &World, plan: &Plan, is_dry_run: bool) {
        if let Some(proxies) = plan.tiers.get(&Tier::Proxy) {
            self.in_service = proxies.in_service;
        }
        for (&tier, of_tier) in &plan.tiers {
            let decision = &of_tier.decision;
            let changes = decision.instances != of_tier.planned;
            let is_held = decision.reason.is_held();
            let this = (decision.instances, std::mem::discriminant(&decision.reason));
            let is_known = self.told.insert(tier, this) == Some(this);
            if (changes || is_held) && (!is_known || (changes && !is_dry_run)) {
                let (from, to) = (of_tier.planned, decision.instances);
                let text = format!("{tier} {from} → {to}: {}", decision.reason);
                self.tell(world, if is_held { "held" } else { "decide" }, &text);
            }
        }
    }

    pub(crate) fn tell_act(&mut self, world: &World, done: &Done) {
        let (what, key, text) = match &done.action {
            Action::Create { instance, cause } => {
                ("create", format!("create {instance}"), format!("{instance}: {cause}"))
            }
            Action::Publish { membership, .. } => {
                let text = self.new_owners(membership);
                ("publish", "publish".to_owned(), text.unwrap_or_default())
            }
            Action::Names { balancers } => {
                let names: Vec<String> =
                    balancers.iter().map(|entry| entry.instance.to_string()).collect();
                ("names", "names".to_owned(), names.join(" "))
            }
            Action::Drain { instance } => {
                ("drain", format!("drain {instance}"), instance.to_string())
            }
            Action::Undrain { instance } => {
                ("undrain", format!("undrain {instance}"), instance.to_string())
            }
            Action::Terminate { instance, cause, machine } => {
                ("remove", format!("remove {machine}"), format!("{instance}: {cause}"))
            }
        };
        match &done.result {
            Ok(()) => {
                self.failures.remove(&key);
                if !text.is_empty() {
                    self.tell(world, what, &text);
                }
            }
            // The same failure again is no news.
            Err(why) if self.failures.get(&key) != Some(why) => {
                self.failures.insert(key.clone(), why.clone());
                self.tell(world, "fail", &format!("{key}: {why}"));
            }
            Err(_) => {}
        }
    }

    /// The generation in words, if calls have other owners in it, or other weights.
    fn new_owners(&mut self, membership: &Membership) -> Option<String> {
        let owners: Vec<(InstanceId, u16)> =
            membership.proxies.iter().map(|member| (member.instance, member.weight)).collect();
        if owners == self.owners {
            return None;
        }
        let mut text = format!("generation {}:", membership.generation);
        for (instance, weight) in &owners {
            let _ = write!(text, " {instance}");
            if *weight != fleet::WEIGHT_NORMAL {
                let _ = write!(text, " ({weight} %)");
            }
        }
        self.owners = owners;
        Some(text)
    }

    pub(crate) fn lines(&mut self) -> &[String] {
        self.lines.make_contiguous()
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if self.left_out > 0 {
            let _ = writeln!(text, "({} lines before are left out)", self.left_out);
        }
        for line in &self.lines {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}
