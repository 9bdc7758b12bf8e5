//! Pages: written at the end of a run and on request, whatever the experiment has come to, and no part of any result.

use crate::support::{Place, TINY};

fn page(place: &Place, name: &str) -> String {
    std::fs::read_to_string(place.path(name)).unwrap()
}

#[test]
fn a_page_is_made_of_what_is_on_disk() {
    let place = Place::with(TINY);
    place.run(&["run", "m.toml", "--quiet"]).expect(0);
    let hashes = place.hashes();
    let own = page(&place, "results/tiny/report.html");
    for part in [
        "Does the whole path work?",
        "nanorun run m.toml",
        "Content-Security-Policy",
        &hashes[0].1.clone().unwrap(),
    ] {
        assert!(own.contains(part), "{part}");
    }
    // From the manifest and from results alone, the same bytes.
    for (name, file) in [("m.toml", "a.html"), ("results/tiny", "b.html")] {
        let told = place.run(&["report", name, "--html", file, "--svg", "figures"]).expect(0);
        assert!(
            told.stderr.contains("the page is in") && told.stderr.contains("figures are in"),
            "{}",
            told.stderr
        );
        assert_eq!(page(&place, file), own, "{name}");
    }
    for figure in ["differences", "loss", "eval", "lr", "momentum", "decay", "throughput"] {
        let svg = page(&place, &format!("figures/{figure}.svg"));
        assert!(svg.starts_with("<svg ") && svg.contains("xmlns=\"http://www.w3.org/2000/svg\""), "{figure}");
    }
    // A part of it says so; nothing was judged anew.
    place.run(&["report", "m.toml", "--only", "run.seed=1", "--html", "part.html"]).expect(0);
    assert!(page(&place, "part.html").contains("This page is about 2 of 4 runs"));
    assert_eq!(page(&place, "results/tiny/report.html"), own);
    // It belongs to no result: without it nothing is missing, and nothing lists it as rubbish.
    let listed = place.run(&["clean"]).expect(0).stdout;
    assert!(!listed.contains("report.html"), "{listed}");
    std::fs::remove_file(place.path("results/tiny/report.html")).unwrap();
    place.run(&["run", "m.toml", "--quiet"]).expect(0);
    assert_eq!(place.hashes(), hashes);
    assert_eq!(page(&place, "results/tiny/report.html"), own);
}

#[test]
fn a_page_that_cannot_be_written_fails_no_run() {
    let place = Place::with(&TINY.replace("\"linear\", \"sqrt\"", "\"linear\"").replace("[1, 2]", "[1]"));
    std::fs::create_dir_all(place.path("results/tiny/report.html/in the way")).unwrap();
    let told = place.run(&["run", "m.toml"]).expect(0);
    assert!(
        told.stderr.contains("note: report.html is not written, the results are whole without it"),
        "{}",
        told.stderr
    );
    // Where it is asked for, that is an error.
    let told = place.run(&["report", "m.toml", "--html", "nowhere/page.html"]).expect(2);
    assert!(told.stderr.contains("the page cannot be written"), "{}", told.stderr);
}

#[test]
fn several_experiments_are_one_page() {
    let place = Place::with(&TINY.replace("[1, 2]", "[1]"));
    std::fs::write(place.path("other.toml"), TINY.replace("\"tiny\"", "\"other\"").replace("[1, 2]", "[3]"))
        .unwrap();
    place.run(&["run", "m.toml", "--quiet"]).expect(0);
    place.run(&["run", "other.toml", "--quiet"]).expect(0);
    let told = place.run(&["report", "m.toml", "results/other", "--html", "both.html"]).expect(0);
    assert!(told.stdout.contains("tiny") && told.stdout.contains("other"), "{}", told.stdout);
    let both = page(&place, "both.html");
    for part in ["Comparison of", "tiny: warmdown=linear", "other: warmdown=sqrt", "measured in the same way"]
    {
        assert!(both.contains(part), "{part}");
    }
    let told = place.run(&["report", "m.toml", "results/tiny", "--html", "twice.html"]).expect(2);
    assert!(told.stderr.contains("named twice"), "{}", told.stderr);
    assert!(!place.path("twice.html").exists());
}

#[test]
fn a_page_of_what_has_not_begun() {
    let place = Place::with(TINY);
    place.run(&["report", "m.toml", "--html", "page.html"]).expect(0);
    let text = page(&place, "page.html");
    assert!(text.contains("0 of 4") && text.contains("No run has ended yet."));
    let told = place.run(&["report", "results/nothing", "--html", "nothing.html"]).expect(2);
    assert!(!place.path("nothing.html").exists(), "{}", told.stderr);
}
