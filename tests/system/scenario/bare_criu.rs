//! CRIU by itself on the container of the recipe: it can be done here, and the harness sees what
//! comes back.

use crate::harness::bare;
use crate::harness::world::World;

pub fn dump_and_restore_keeps_the_connection(world: &World) {
    let container = world.container().memory(16);
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    before.assert_sound();

    let dumped = bare::dump(&container, &world.images("bare"));
    container.wait_state("STOPPED");
    witness.send("said to a stopped container");
    let _restored = bare::restore(&dumped);

    assert_eq!(witness.receive(), "said to a stopped container");
    let after = witness.assert_goes_on_from(&before);
    container.wait_syslog(&format!("status at {}", after.get("elapsed_ms")));
}
