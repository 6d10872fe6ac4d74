//! Function call messages ("fastpath", which libpq uses for large objects): an OID means something
//! on one server only, so they go to the home shard.

use pgherd_planner::Access;

use super::extended::nothing_planned;
use crate::error::{ErrorInfo, Failure};
use crate::executor::{Conn, Ready};
use crate::wire::HEADER;
use crate::wire::backend::FIRST_USER_OID;

impl Conn {
    /// Runs the FunctionCall frame at the start of the client's buffer, ReadyForQuery included.
    pub(super) async fn function_call(&mut self, size: usize) -> Result<(), Failure> {
        if let Err(failure) = self.call(size).await {
            self.tell(failure)?;
        }
        Box::pin(self.end_simple()).await
    }

    async fn call(&mut self, size: usize) -> Result<(), Failure> {
        let frame = self.client.inbuf.split_to(size);
        if self.session.transaction.failed() {
            return Err(ErrorInfo::failed_block().into());
        }
        self.refresh_planning();
        let at = self.server_for(self.planning.map.home).await?;
        let mut request = Vec::new();
        let hidden = self.put_join(at, &mut request);
        request.extend_from_slice(&frame);
        // Nobody knows what the function does.
        let plan = nothing_planned(self.planning.map.epoch, Access::Write);
        // PostgreSQL's own that are called so are those of large objects, which leave nothing.
        let number = frame.get(HEADER..HEADER + 4).and_then(|number| number.try_into().ok());
        if number.is_some_and(|number| u32::from_be_bytes(number) >= FIRST_USER_OID) {
            self.touch_home();
        }
        let end = self.relay(at, &request, hidden, Ready::Keep, &plan).await?;
        self.look_again().await;
        if end.failed { Err(Failure::Told) } else { Ok(()) }
    }
}
