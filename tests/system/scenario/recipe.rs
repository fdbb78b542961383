//! The container of the recipe, as LXC runs it.

use crate::harness::World;

pub fn runs_and_echoes(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    witness.echo("over the bridge");
    let before = witness.status();
    before.assert_sound();
    witness.echo("again");
    witness.assert_goes_on_from(&before);
    assert!(container.veth().starts_with("veth"));
    container.exec(["/bin/true"]).assert_code(0);
    container.exec(["/bin/false"]).assert_code(1);
    container.stop();
}
