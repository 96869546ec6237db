//! How it is timed: rounds in which all contenders take turns at all places.

use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, anyhow};

use crate::contender::{Contender, Extent, Scenario, Verb, Work};
use crate::stage::{Crowd, Host, PODS_PER_CALLER, Stage, bar, fill_leases};

/// Milliseconds of a call that need not be made as often as others.
const SLOW: f64 = 60.0;

/// How much is done.
pub struct Effort {
    pub rounds: usize,
    pub samples: usize,
}

/// One contender's figures for one operation under one condition.
pub struct Measured {
    pub scenario: &'static Scenario,
    pub verb: Verb,
    pub callers: usize,
    /// Attachments, or leases, that were there already.
    pub present: usize,
    pub contender: &'static str,
    pub rounds: Vec<Round>,
}

/// What a round yielded.
#[derive(Default)]
pub struct Round {
    /// Each call's time in milliseconds.
    pub times: Vec<f64>,
    /// Calls per second, all callers together.
    pub rate: f64,
}

/// Where one contender is measured.
struct Place<'a> {
    contender: &'a Contender,
    host: &'a Host,
    present: usize,
    network: String,
    /// Every how manieth of the samples is taken.
    every: usize,
    rounds: [Vec<Round>; 2],
}

/// Measures one scenario under all its conditions, by each number of callers.
pub fn scenario(
    stage: &Stage,
    crowds: &[Crowd],
    scenario: &'static Scenario,
    callers: &[usize],
    effort: &Effort,
) -> Result<Vec<Measured>> {
    let mut measured = Vec::new();
    let mut places = places(stage, crowds, scenario)?;
    let brief = scenario.extent == Extent::Brief;
    for callers in callers.iter().filter(|callers| !brief || **callers == 1) {
        let what = format!("{scenario}, {callers} at a time");
        let progress = bar(effort.rounds, &what);
        progress.tick();
        for _ in 0..effort.rounds {
            if *callers == 1 {
                one_at_a_time(&mut places, scenario, effort.samples)?;
            } else {
                many_at_a_time(&mut places, scenario, *callers)?;
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
        for place in &mut places {
            for (verb, rounds) in scenario.verbs().iter().zip(&mut place.rounds) {
                measured.push(Measured {
                    scenario,
                    verb: *verb,
                    callers: *callers,
                    present: place.present,
                    contender: place.contender.name(),
                    rounds: std::mem::take(rounds),
                });
            }
        }
    }
    Ok(measured)
}

fn places<'a>(
    stage: &'a Stage,
    crowds: &'a [Crowd],
    scenario: &Scenario,
) -> Result<Vec<Place<'a>>> {
    // What needs no host's state is measured on the emptiest; leases are cheap to have more of.
    let mut levels: Vec<_> = crowds.iter().map(|crowd| (crowd, crowd.present)).collect();
    if scenario.extent == Extent::Brief {
        levels.truncate(1);
    } else if let (false, Some(first), Some(last)) =
        (scenario.attaches(), crowds.first(), crowds.last())
    {
        levels = crowds.iter().map(|crowd| (first, crowd.present)).collect();
        if last.present > 0 {
            levels.push((first, 5 * last.present));
        }
        if scenario.work == Work::Nothing {
            levels.truncate(1);
        }
    }
    let mut places = Vec::new();
    for (crowd, present) in levels {
        for contender in stage.contenders.iter().filter(|contender| contender.can(scenario)) {
            let network = format!("{}-{present}-{}", contender.name(), scenario.number());
            fill_leases(&network, scenario, present)?;
            let host = crowd.host(contender);
            let mut place =
                Place { contender, host, present, network, every: 1, rounds: Default::default() };
            // The first calls make what all share; the next tell how slow they are.
            place.take_turn(scenario)?;
            let slow = place.take_turn(scenario)?.iter().sum::<f64>() / SLOW;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few")]
            let every = slow.round().max(1.0) as usize;
            place.every = every;
            places.push(place);
        }
    }
    Ok(places)
}

impl Place<'_> {
    /// Calls all verbs once, by one caller.
    fn take_turn(&self, scenario: &Scenario) -> Result<Vec<f64>> {
        let pod = self.host.pods.first().ok_or_else(|| anyhow!("a host without pods"))?;
        let mut times = Vec::new();
        thread::scope(|scope| {
            let turn = scope.spawn(|| {
                self.host.enter()?;
                for verb in scenario.verbs() {
                    let mut call =
                        self.contender.prepare(*verb, scenario, &self.network, self.host, pod);
                    if *verb == Verb::Del {
                        wait_out_of_step();
                    }
                    let begin = Instant::now();
                    call.run()?;
                    times.push(begin.elapsed().as_secs_f64() * 1e3);
                }
                anyhow::Ok(())
            });
            turn.join().map_err(|_| anyhow!("a caller"))?
        })?;
        Ok(times)
    }

    /// Calls a verb for many pods by many callers.
    fn call_all(&self, verb: Verb, scenario: &Scenario, callers: usize) -> Result<Round> {
        let times = Mutex::new(Vec::new());
        // All callers, and who looks at the clock.
        let (ready, done) = (Barrier::new(callers + 1), Barrier::new(callers + 1));
        let call = |pods: &[crate::stage::Pod]| {
            let entered = self.host.enter();
            let mut calls: Vec<_> = pods
                .iter()
                .map(|pod| self.contender.prepare(verb, scenario, &self.network, self.host, pod))
                .collect();
            let mut own = Vec::new();
            ready.wait();
            let outcome = entered.and_then(|()| {
                calls.iter_mut().try_for_each(|call| {
                    let begin = Instant::now();
                    call.run()?;
                    own.push(begin.elapsed().as_secs_f64() * 1e3);
                    Ok(())
                })
            });
            done.wait();
            if let Ok(mut times) = times.lock() {
                times.extend(own);
            }
            outcome
        };
        let mut rate = 0.0;
        thread::scope(|scope| {
            let call = &call;
            let callers: Vec<_> = self
                .host
                .pods
                .chunks(PODS_PER_CALLER)
                .take(callers)
                .map(|pods| scope.spawn(move || call(pods)))
                .collect();
            ready.wait();
            let begin = Instant::now();
            done.wait();
            #[expect(clippy::cast_precision_loss, reason = "few")]
            let calls = (callers.len() * PODS_PER_CALLER) as f64;
            rate = calls / begin.elapsed().as_secs_f64();
            callers
                .into_iter()
                .try_for_each(|caller| caller.join().map_err(|_| anyhow!("a caller"))?)
        })?;
        Ok(Round { times: times.into_inner().map_err(|_| anyhow!("a caller"))?, rate })
    }
}

/// Deleting a link waits for RCU grace periods, which go by the kernel's ticks: whoever began the same time
/// after the end of the call before would always wait for as many of them.
fn wait_out_of_step() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    thread::sleep(Duration::from_micros(u64::from(now.subsec_nanos() % 8000)));
}

/// Has another order of turns, so that nobody always follows the same one.
fn shuffle(places: &mut [Place<'_>]) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut state = u64::from(now.subsec_nanos()) | 1;
    for at in (1..places.len()).rev() {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        #[expect(clippy::cast_possible_truncation, reason = "a small remainder")]
        places.swap(at, (state % (at as u64 + 1)) as usize);
    }
}

fn one_at_a_time(places: &mut [Place<'_>], scenario: &Scenario, samples: usize) -> Result<()> {
    for place in places.iter_mut() {
        for rounds in &mut place.rounds {
            rounds.push(Round::default());
        }
    }
    for sample in 0..samples {
        shuffle(places);
        for place in places.iter_mut().filter(|place| sample % place.every == 0) {
            let times = place.take_turn(scenario)?;
            for (rounds, time) in place.rounds.iter_mut().zip(times) {
                if let Some(round) = rounds.last_mut() {
                    round.times.push(time);
                    #[expect(clippy::cast_precision_loss, reason = "few")]
                    let count = round.times.len() as f64;
                    round.rate = 1e3 * count / round.times.iter().sum::<f64>();
                }
            }
        }
    }
    Ok(())
}

fn many_at_a_time(places: &mut [Place<'_>], scenario: &Scenario, callers: usize) -> Result<()> {
    shuffle(places);
    for place in places.iter_mut() {
        for (at, verb) in scenario.verbs().iter().enumerate() {
            let round = place.call_all(*verb, scenario, callers)?;
            if let Some(rounds) = place.rounds.get_mut(at) {
                rounds.push(round);
            }
        }
    }
    Ok(())
}
