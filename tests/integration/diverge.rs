//! A run whose loss is no number stops; the others go on.

use crate::support::{Place, TINY};

#[test]
fn one_diverging_run_does_not_stop_the_others() {
    let wild = "\n[[matrix.include]]\nlabel = \"wild\"\nrun.seed = 1\noptimizer.kind = \"sgd\"\noptimizer.lr = 1000\noptimizer.weight_decay = 1000\n";
    let place = Place::with(&format!("{TINY}{wild}"));
    let ended = place.run(&["run", "m.toml"]).expect(3);
    assert!(ended.stderr.contains("wild seed=1 failed: the loss of step "), "{}", ended.stderr);
    assert!(ended.stderr.contains("the last good checkpoint is results/tiny/runs/"), "{}", ended.stderr);
    let plan = place.run(&["plan", "m.toml", "--json"]).expect(0).json();
    assert_eq!(plan["runs"][4]["status"], "diverged");
    assert!(plan["runs"][4]["reason"].as_str().unwrap().starts_with("the loss of step "), "{plan}");
    let hashes = place.hashes();
    let finished = hashes.iter().filter(|(_, hash)| hash.is_some()).count();
    assert_eq!((hashes.len(), finished), (5, 4), "{hashes:?}");
}
