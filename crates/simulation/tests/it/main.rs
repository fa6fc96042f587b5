//! Scenarios against their stories, and random hours against the promises.

mod hours;
mod scenarios;
