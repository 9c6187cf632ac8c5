//! Several evaluations of one state in one call where the conditions stack.

use crate::denoiser::{Branch, Cond, Denoiser, Pass};
use crate::error::Result;
use crate::level::Levels;
use crate::state::State;

/// The estimates of the clean sample under several conditions, in the order asked.
///
/// One stacked call where all conditions are of one kind and the pass allows it, otherwise one call
/// after the other; the rows are told apart by their branch either way, so that the results are the
/// same.
///
/// # Errors
///
/// What the denoiser says.
pub fn evaluate_branches(
    model: &dyn Denoiser,
    x: &State,
    at: &Levels,
    branches: &[(Branch, &Cond)],
    pass: &mut Pass,
) -> Result<Vec<State>> {
    let conds: Vec<&Cond> = branches.iter().map(|(_, c)| *c).collect();
    match Cond::cat(&conds) {
        Ok(mut stacked) if !pass.sequential && branches.len() > 1 => {
            let rows: Vec<usize> = (0..branches.len()).flat_map(|_| 0..x.batch()).collect();
            stacked.reward = conds[0].reward.as_ref().map(|r| r.select(&rows));
            stack(model, x, at, branches, &stacked, pass)
        }
        _ => branches
            .iter()
            .map(|(branch, cond)| pass.on_branch(*branch, at, |pass| model.x0(x, at, cond, pass)))
            .collect(),
    }
}

fn stack(
    model: &dyn Denoiser,
    x: &State,
    at: &Levels,
    branches: &[(Branch, &Cond)],
    cond: &Cond,
    pass: &mut Pass,
) -> Result<Vec<State>> {
    let batch = x.batch();
    let copies = vec![x.clone(); branches.len()];
    let levels: Vec<_> = branches.iter().map(|_| (at.clone(), batch)).collect();
    let rows = branches.iter().flat_map(|(branch, _)| {
        pass.rows.iter().enumerate().map(|(i, row)| {
            let mut row = *row;
            row.branch = *branch;
            row.level = at.row(i);
            row
        })
    });
    let rows = rows.collect();
    let (x, levels) = (State::cat(&copies)?, Levels::cat(&levels)?);
    let all = pass.over_rows(rows, |pass| model.x0(&x, &levels, cond, pass))?;
    let part = |i: usize| (i * batch..(i + 1) * batch).collect::<Vec<_>>();
    Ok((0..branches.len()).map(|i| all.select(&part(i))).collect())
}
