//! One of two nets is cut and comes back, again and again, under traffic of all kinds: nothing may be lost by that.

use super::{MESH_WITHIN, Run};
use crate::checks::{Violation, check_mesh};
use std::time::Duration;

const NETS: usize = 2;
/// How long a cut lasts in milliseconds: too short to be noticed, about a tolerance, longer.
const LASTS_MS: [(u64, u64); 4] = [(1, 110), (110, 1_400), (1_400, 2_000), (2_000, 5_000)];

impl Run {
    pub(super) fn live_through_cuts(&mut self, cuts: usize) -> Result<(), Violation> {
        self.act_for(Duration::from_secs(2))?;
        self.add_net()?;
        for _ in 0..cuts {
            let net = self.cluster.rng.below(NETS as u64) as usize;
            self.cut_part_of(net);
            let (least, most) = self.cluster.rng.pick(&LASTS_MS);
            let lasts = self.cluster.rng.within(least..most);
            self.act_for(Duration::from_millis(lasts))?;
            self.say(|| format!("net {net} is whole"));
            self.cluster.net(net).heal();
            self.act_until_joined()?;
        }
        Ok(())
    }

    /// Things happen for a while.
    fn act_for(&mut self, span: Duration) -> Result<(), Violation> {
        let end = self.cluster.now + span;
        while self.cluster.now < end {
            self.act()?;
        }
        Ok(())
    }

    /// Each node gets a bearer on another net, one after the other.
    fn add_net(&mut self) -> Result<(), Violation> {
        let delay_us = self.cluster.rng.pick(&[20, 200, 5_000]);
        self.cluster.net(NETS - 1).delay_us = delay_us;
        for station in self.cluster.stations() {
            self.cluster.add_bearer(station);
            self.act_for(Duration::from_millis(300))?;
        }
        self.cluster.recipe.nets = NETS;
        self.act_until_joined()
    }

    fn act_until_joined(&mut self) -> Result<(), Violation> {
        let end = self.cluster.now + MESH_WITHIN;
        let all = self.cluster.stations();
        loop {
            self.act_for(Duration::from_millis(100))?;
            let joined = check_mesh(&self.links_by(NETS), &all, MESH_WITHIN);
            if joined.is_ok() || self.cluster.now >= end {
                return joined;
            }
        }
    }

    /// All of a net, a node's part of it, or the way between two nodes in both directions or in one.
    fn cut_part_of(&mut self, net: usize) {
        let all = self.cluster.stations();
        let (a, b) = (self.cluster.rng.pick(&all), self.cluster.rng.pick(&all));
        let how = self.cluster.rng.below(4);
        let is_cut = |x: usize, y: usize| match how {
            0 => true,
            1 => x == a || y == a,
            2 => (x, y) == (a, b) || (y, x) == (a, b),
            _ => (x, y) == (a, b),
        };
        let pairs = all.iter().flat_map(|x| all.iter().map(move |y| (*x, *y)));
        let cuts: Vec<_> = pairs.filter(|(x, y)| x != y && is_cut(*x, *y)).collect();
        self.say(|| format!("net {net} loses {cuts:?}"));
        self.cluster.net(net).cuts.extend(cuts);
    }
}
