//! Bugs kept on purpose: for each invariant at least one that the simulation must catch, and name.
//!
//! They sit at the seam, where the arbiter's inputs and outputs pass, so the observer sees a world in
//! which the arbiter has that bug. A check that no mutation trips is a check nobody has seen work.

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
    SwallowsExited TellsAnEndTwice SpawnsAfterStop ExitsEarly ExitsTwice NeverExits
    IgnoresSecondStop ForgetsBackoff ForgetsMinUptime ServesTheUnbootable EndsOnSpawnError
    LowersTargetOnSpawnError OneWaitsAllWait LosesReady LosesDeadlines DelaysDeadlines TicksAreDeeds
    DropsReopen DropsScale DropsStop StopsBeforeSuccessor CondemnsLateWakers CondemnsTheBooting
    ReusesIdentities DependsOnOrder Babbles RemembersEverything HasAClockOfItsOwn
    ForgetsHelpers CountsHelpers EndsWithAHelper DismissesTheWardenFirst DismissesTheLogFirst
    DismissesTwice     KillsHelpersAtOnce TellsAHelpersEndTwice HelpsAfterStop HelpersSpin ForgetsStrays
    OverlooksStrays GivesStraysUpAsleep ServesOnAfterTheLast ForgetsTheCap LeavesTheLastTaskUndone
    LosesReloadsInRolls LosesRefusals DropsDrain WeighsWrongly KeepsAnOldTarget KeepsTheOldGrace IgnoresTheUnavailable HoldsNoCanary TakesTheRefused ScalesWhenRefused KeepsTheTargetOfTheFailed BootsCanariesTwice ProvesNobody ForgetsToRollBack AbandonsTwice StopsBesideTheCanary StopsForNothing MixesGenerations LoadsInAStop LoadsAtOnce ServesOnDrained StopsAllInRolls IsDeafWhileLoading
}

impl Mutation {
    /// The invariant that must be named, and those that may be where the circumstances break another
    /// one first.
    const fn breaks(self) -> &'static [u8] {
        match self {
            Self::SpawnsOneTooMany | Self::SurgesTooMuch => &[1],
            Self::SignalsTheDead => &[2],
            Self::DoublesKill | Self::KillsEarly => &[3],
            // In a quit there is no deadline to miss.
            Self::DropsKill => &[3, 8],
            Self::DoublesStop => &[4],
            Self::SwallowsExited | Self::TellsAnEndTwice => &[5],
            Self::SpawnsAfterStop => &[6],
            Self::ExitsEarly | Self::ExitsTwice | Self::NeverExits => &[7],
            Self::IgnoresSecondStop => &[8, 13, 7],
            Self::ForgetsBackoff => &[9],
            // The first worker has proven itself too early.
            Self::ForgetsMinUptime => &[9, 10],
            Self::ServesTheUnbootable | Self::EndsOnSpawnError | Self::LowersTargetOnSpawnError => {
                &[10]
            }
            Self::OneWaitsAllWait => &[11, 13],
            // It ends for want of a readiness that it had reported.
            Self::LosesReady => &[12, 21],
            Self::LosesDeadlines | Self::DelaysDeadlines | Self::TicksAreDeeds => &[13],
            Self::DropsReopen | Self::DropsScale | Self::DropsStop => &[14],
            // The probes go on for a worker that was stopped while it booted.
            Self::StopsBeforeSuccessor => &[17, 21],
            Self::CondemnsLateWakers => &[20],
            // Counts before anybody asked are lies, and it believes them.
            Self::GivesStraysUpAsleep => &[20, 7],
            Self::CondemnsTheBooting => &[21],
            Self::ReusesIdentities => &[22],
            // A worker is not ready that said it is.
            Self::DependsOnOrder => &[23, 12, 21],
            Self::Babbles | Self::RemembersEverything => &[24],
            Self::HasAClockOfItsOwn => &[25],
            Self::ForgetsHelpers => &[12],
            Self::CountsHelpers | Self::EndsWithAHelper | Self::ServesOnAfterTheLast => &[10],
            Self::DismissesTheWardenFirst
            | Self::DismissesTheLogFirst
            | Self::ForgetsStrays
            | Self::OverlooksStrays => &[7],
            Self::DismissesTwice => &[4],
            Self::KillsHelpersAtOnce => &[3],
            Self::TellsAHelpersEndTwice => &[5],
            // One that ends last has a process already.
            Self::HelpsAfterStop => &[6, 1, 2],
            Self::HelpersSpin => &[9],
            // A helper that still has to be told to leave.
            Self::LeavesTheLastTaskUndone => &[9, 7],
            Self::ForgetsTheCap => &[13, 12],
            Self::LosesReloadsInRolls | Self::DropsDrain => &[14],
            Self::LosesRefusals => &[14, 18],
            Self::WeighsWrongly => &[17],
            Self::KeepsAnOldTarget => &[10, 14, 18, 1],
            Self::KeepsTheOldGrace => &[3],
            Self::IgnoresTheUnavailable => &[16, 17],
            // The first worker of all has proven itself too early.
            Self::HoldsNoCanary => &[18, 10],
            Self::TakesTheRefused => &[18, 15],
            Self::IsDeafWhileLoading => &[15, 23, 18, 21, 12],
            Self::ScalesWhenRefused => &[15, 10, 14, 1],
            Self::KeepsTheTargetOfTheFailed => &[1, 10],
            Self::BootsCanariesTwice => &[17, 18, 2, 10, 21],
            Self::ProvesNobody => &[18, 10, 17, 1],
            Self::ForgetsToRollBack => &[18],
            Self::AbandonsTwice => &[18],
            Self::StopsBesideTheCanary => &[18, 17, 16],
            Self::StopsForNothing => &[17],
            Self::MixesGenerations => &[18],
            Self::LoadsInAStop => &[6],
            Self::LoadsAtOnce => &[18],
            Self::ServesOnDrained => &[14],
            Self::StopsAllInRolls => &[16, 17, 18],
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
    for seed in 0..SEEDS {
        let Err(violation) = judge(&drawn(seed), Some(mutation), true) else { continue };
        let how = format!("{mutation:?}: seed {seed}: {violation}");
        match mutation.breaks() {
            [first, ..] if *first == violation.invariant => return Ok(how),
            others if others.contains(&violation.invariant) => {}
            _ => return Err(how),
        }
    }
    Err(format!("{mutation:?}: not caught in {SEEDS} seeds"))
}

/// Every invariant that can be broken today has its mutation.
#[test]
fn every_invariant_has_a_mutation() {
    let later = [19];
    for invariant in (1..=25).filter(|number| !later.contains(number)) {
        let is_covered = ALL.iter().any(|mutation| mutation.breaks().contains(&invariant));
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
