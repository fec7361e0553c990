//! Bugs kept on purpose: for each invariant at least one that the simulation must catch, and name.
//!
//! They sit at the seam, where the arbiter's inputs and outputs pass, so the observer sees a world in
//! which the arbiter has that bug. A check that no mutation trips is a check nobody has seen work.

use std::collections::BTreeMap;

use super::{drawn, judge};

mod bugs;

pub(super) use bugs::Mutant;

/// Seeds within which every mutation must be caught.
const SEEDS: u64 = 500;

macro_rules! mutations {
    ($($name:ident)*) => {
        /// A kind of bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Mutation { $($name),* }

        /// Every kind of bug.
        const ALL: &[Mutation] = &[$(Mutation::$name),*];
    };
}

mutations! {
    SpawnsOneTooMany SurgesTooMuch SignalsTheDead DoublesKill DropsKill KillsEarly DoublesStop
    IgnoresTheDelay DelaysTwice LeavesTheQueue
    SwallowsExited TellsAnEndTwice SpawnsAfterStop ExitsEarly ExitsTwice NeverExits
    IgnoresSecondStop ForgetsBackoff ForgetsMinUptime ServesTheUnbootable EndsOnSpawnError
    LowersTargetOnSpawnError OneWaitsAllWait LosesReady LosesDeadlines DelaysDeadlines TicksAreDeeds
    DropsReopen DropsScale DropsStop StopsBeforeSuccessor CondemnsLateWakers CondemnsTheBooting
    ReusesIdentities DependsOnOrder Babbles RemembersEverything HasAClockOfItsOwn
    ForgetsHelpers CountsHelpers EndsWithAHelper DismissesTheWardenFirst DismissesTheLogFirst
    DismissesTwice     KillsHelpersAtOnce TellsAHelpersEndTwice HelpsAfterStop HelpersSpin ForgetsStrays
    OverlooksStrays GivesStraysUpAsleep ServesOnAfterTheLast ForgetsTheCap LeavesTheLastTaskUndone
    LosesReloadsInRolls LosesRefusals DropsDrain WeighsWrongly KeepsAnOldTarget KeepsTheOldGrace IgnoresTheUnavailable HoldsNoCanary TakesTheRefused ScalesWhenRefused KeepsTheTargetOfTheFailed BootsCanariesTwice ProvesNobody ForgetsToRollBack AbandonsTwice StopsBesideTheCanary StopsForNothing MixesGenerations LoadsInAStop LoadsAtOnce ServesOnDrained StopsAllInRolls IsDeafWhileLoading
    DropsUpgrades UpgradesBesideReloads StartsTwoSuccessors CommitsTwice HandsOverWhenReady
    KeepsItsSockets ForgetsToForward HidesFailedUpgrades MissesTheEndOfSuccessors WaitsForSuccessors
    KillsSuccessorsAtOnce RecyclesForFailedUpgrades
}

impl Mutation {
    /// The invariant that must be named within the seeds. In some lives the circumstances break another one
    /// first.
    const fn breaks(self) -> u8 {
        match self {
            Self::SpawnsOneTooMany | Self::SurgesTooMuch => 1,
            Self::SignalsTheDead => 2,
            Self::DoublesKill | Self::KillsEarly => 3,
            Self::DropsKill => 3,
            Self::DoublesStop | Self::LeavesTheQueue => 4,
            Self::SwallowsExited | Self::TellsAnEndTwice => 5,
            Self::SpawnsAfterStop => 6,
            Self::ExitsEarly | Self::ExitsTwice | Self::NeverExits => 7,
            Self::IgnoresTheDelay | Self::DelaysTwice => 7,
            Self::IgnoresSecondStop => 8,
            Self::ForgetsBackoff => 9,
            Self::ForgetsMinUptime => 9,
            Self::ServesTheUnbootable | Self::EndsOnSpawnError | Self::LowersTargetOnSpawnError => {
                10
            }
            Self::OneWaitsAllWait => 11,
            Self::LosesReady => 12,
            Self::LosesDeadlines | Self::DelaysDeadlines | Self::TicksAreDeeds => 13,
            Self::DropsReopen | Self::DropsScale | Self::DropsStop => 14,
            Self::StopsBeforeSuccessor => 17,
            Self::CondemnsLateWakers => 20,
            Self::GivesStraysUpAsleep => 20,
            Self::CondemnsTheBooting => 21,
            Self::ReusesIdentities => 22,
            Self::DependsOnOrder => 23,
            Self::Babbles | Self::RemembersEverything => 24,
            Self::HasAClockOfItsOwn => 25,
            Self::ForgetsHelpers => 12,
            Self::CountsHelpers | Self::EndsWithAHelper | Self::ServesOnAfterTheLast => 10,
            Self::DismissesTheWardenFirst
            | Self::DismissesTheLogFirst
            | Self::ForgetsStrays
            | Self::OverlooksStrays => 7,
            Self::DismissesTwice => 4,
            Self::KillsHelpersAtOnce => 3,
            Self::TellsAHelpersEndTwice => 5,
            Self::HelpsAfterStop => 6,
            Self::HelpersSpin => 9,
            Self::LeavesTheLastTaskUndone => 9,
            Self::ForgetsTheCap => 13,
            Self::LosesReloadsInRolls | Self::DropsDrain => 14,
            Self::LosesRefusals => 14,
            Self::WeighsWrongly => 17,
            Self::KeepsAnOldTarget => 10,
            Self::KeepsTheOldGrace => 3,
            Self::IgnoresTheUnavailable => 16,
            Self::HoldsNoCanary => 18,
            Self::TakesTheRefused => 18,
            Self::IsDeafWhileLoading => 15,
            Self::ScalesWhenRefused => 15,
            Self::KeepsTheTargetOfTheFailed => 1,
            Self::BootsCanariesTwice => 17,
            Self::ProvesNobody => 18,
            Self::ForgetsToRollBack => 18,
            Self::AbandonsTwice => 18,
            Self::StopsBesideTheCanary => 18,
            Self::StopsForNothing => 17,
            Self::MixesGenerations => 18,
            Self::LoadsInAStop => 6,
            Self::LoadsAtOnce => 18,
            Self::ServesOnDrained | Self::DropsUpgrades | Self::ForgetsToForward => 14,
            Self::KillsSuccessorsAtOnce => 3,
            Self::UpgradesBesideReloads
            | Self::StartsTwoSuccessors
            | Self::CommitsTwice
            | Self::HandsOverWhenReady
            | Self::KeepsItsSockets
            | Self::HidesFailedUpgrades
            | Self::MissesTheEndOfSuccessors
            | Self::WaitsForSuccessors
            | Self::RecyclesForFailedUpgrades => 19,
            Self::StopsAllInRolls => 16,
        }
    }
}

#[test]
fn every_mutation_is_caught_and_named() {
    let mut missed = Vec::new();
    for mutation in ALL.iter().copied() {
        match hunt(mutation) {
            Ok(how) => println!("{how}"),
            Err(how) => missed.push(how),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

fn hunt(mutation: Mutation) -> Result<String, String> {
    let mut others = BTreeMap::new();
    for seed in 0..SEEDS {
        let Err(violation) = judge(&drawn(seed), Some(mutation), true) else { continue };
        if violation.invariant == mutation.breaks() {
            return Ok(format!("{mutation:?}: seed {seed}: {violation}"));
        }
        others.entry(violation.invariant).or_insert((seed, violation));
    }
    Err(format!("{mutation:?}: I{} not named in {SEEDS} seeds: {others:?}", mutation.breaks()))
}

/// Every invariant has its mutation.
#[test]
fn every_invariant_has_a_mutation() {
    for invariant in 1..=25 {
        let is_covered = ALL.iter().any(|mutation| mutation.breaks() == invariant);
        assert!(is_covered, "no mutation breaks I{invariant}");
    }
}

#[test]
fn without_a_mutation_the_same_seeds_are_clean() {
    for seed in 0..SEEDS {
        if let Err(violation) = judge(&drawn(seed), None, false) {
            panic!("seed {seed}: {violation}");
        }
    }
}
