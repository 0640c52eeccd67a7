//! `ribera-agent backfill`: history, a batch per month. What was sent and agrees is left out, so
//! running it again resumes.

use super::{Common, Days, Stopped, checked, once};
use crate::cycle::Ask;
use crate::report::Exit;

pub async fn main(common: &Common, days: &Days) -> Result<Exit, Stopped> {
    let ask = Ask::Backfill { days: checked(days)?, force: days.force };
    once::run(common, "backfill", ask, &days.wait).await
}
