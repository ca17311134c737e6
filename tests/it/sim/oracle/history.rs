//! **Reads are linearizable per object**: what all clients did and were told, in the order of the run's
//! steps, is one register per object (`crate::history`).

use super::{
    super::client::{Goal, Told},
    Checked,
};
use crate::history::{self, Answer, Operation, What, Written};

/// States that the checker may look at in one run; more is a failure.
const STEPS_MAX: u64 = 2_000_000;

#[derive(Default)]
pub struct Histories {
    operations: Vec<Operation>,
}

impl Histories {
    /// A client begins something; the answer names it.
    pub fn begin(&mut self, client: usize, index: usize, goal: Goal, step: u64) -> usize {
        let what = match goal {
            Goal::Put { value } => What::Write { value: Some(value), outcome: Written::Unknown },
            Goal::Remove => What::Write { value: None, outcome: Written::Unknown },
            Goal::Get | Goal::Look => What::Read(Answer::Failed),
        };
        let object = format!("picture-{index}");
        self.operations.push(Operation {
            object,
            client: client as u32,
            invoked: step,
            returned: None,
            what,
        });
        self.operations.len() - 1
    }

    /// It has ended. `told` is what the client was told; none = nothing for sure, and then only what was
    /// proposed may have happened.
    pub fn end(
        &mut self,
        operation: usize,
        step: u64,
        told: Option<Told>,
        may_have_happened: bool,
    ) -> Checked {
        let operation = &mut self.operations[operation];
        operation.returned = Some(step);
        operation.what = match (&operation.what, told) {
            (What::Write { value, .. }, Some(Told::Wrote { version, value: wrote })) => {
                if *value != wrote {
                    return Err(format!("a write of {value:?} ended as one of {wrote:?}"));
                }
                What::Write { value: *value, outcome: Written::At(version) }
            }
            (What::Write { value, .. }, None) if may_have_happened => {
                operation.returned = None;
                What::Write { value: *value, outcome: Written::Unknown }
            }
            (What::Write { value, .. }, None) => What::Write { value: *value, outcome: Written::Refused },
            (_, Some(Told::Read { version, value })) => {
                What::Read(Answer::Found { version, value: Some(value) })
            }
            (_, Some(Told::Nothing { version: 0 })) => What::Read(Answer::Nothing),
            (_, Some(Told::Nothing { version })) => What::Read(Answer::Found { version, value: None }),
            (What::Read(_), None) => {
                operation.returned = None;
                What::Read(Answer::Failed)
            }
            (What::Read(_), Some(Told::Wrote { .. })) => return Err("a read ended as a write".into()),
        };
        Ok(())
    }

    /// Proves all of it; the answer is how many operations there were.
    pub fn prove(&self) -> Result<u64, String> {
        match history::check(&self.operations, STEPS_MAX) {
            Ok(checked) => Ok(checked.operations as u64),
            Err(failure) => Err(failure.to_string()),
        }
    }
}
