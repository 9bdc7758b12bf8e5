//! Every size and law against upstream's own numbers.

use serde_json::Value;

use super::*;

fn shape(recipe: &Recipe, depth: usize, vocab_size: usize) -> GptShape {
    let model = &recipe.model;
    GptShape {
        depth,
        aspect_ratio: model.aspect_ratio,
        head_dim: model.head_dim,
        n_kv_head: None,
        sequence_len: model.sequence_len,
        vocab_size,
        window_pattern: model.window_pattern.to_owned(),
        short_window: model.short_window,
        ve_gate_channels: model.value_embeds.then_some(model.ve_gate_channels),
        smear_channels: model.smear.then_some(model.smear_channels),
        backout: model.backout,
        flops_count_smear_gate: model.flops_count_smear_gate,
    }
}

#[test]
fn every_row_of_shapes_is_equal() {
    let rows = include_str!("../../tests/fixtures/upstream/shapes.jsonl");
    let mut seen = std::collections::BTreeMap::new();
    for row in rows.lines().filter(|line| !line.trim().is_empty()) {
        let row: Value = serde_json::from_str(row).unwrap();
        let int = |key: &str| row[key].as_u64().unwrap() as usize;
        let recipe = find(row["commit"].as_str().unwrap()).unwrap();
        let sizes = GptShape {
            depth: int("depth"),
            aspect_ratio: int("aspect_ratio"),
            head_dim: int("head_dim"),
            sequence_len: int("sequence_len"),
            vocab_size: int("vocab_size"),
            window_pattern: row["window_pattern"].as_str().unwrap().to_owned(),
            ..shape(recipe, 1, 1)
        }
        .sizes();
        assert_eq!(sizes.n_embd, int("n_embd"), "{row}");
        assert_eq!(sizes.n_head, int("n_head"), "{row}");
        assert_eq!(serde_json::json!(sizes.windows), row["window_left"], "{row}");
        assert_eq!(serde_json::json!(sizes.value_embed_layers), row["value_embed_layers"], "{row}");
        assert_eq!(serde_json::json!(sizes.params), row["params"], "{row}");
        assert_eq!(sizes.flops_per_token, row["flops_per_token"].as_u64().unwrap(), "{row}");
        *seen.entry(recipe.short()).or_insert(0) += 1;
    }
    assert!(seen.len() >= 7 && seen.values().all(|rows| *rows == 19), "{seen:?}");
}

/// One object of several.
fn merged<const N: usize>(parts: [Value; N]) -> Value {
    let members = parts.into_iter().flat_map(|part| match part {
        Value::Object(members) => members,
        other => panic!("{other}"),
    });
    Value::Object(members.collect())
}

/// A table as `scripts/new_commit` reads upstream's own code. Every member is named, so that none is left out.
fn told(recipe: &Recipe) -> Value {
    let Recipe { commit, date, note: _, model, init, optimizer, schedule, data } = recipe;
    let super::recipe::InitRecipe {
        wte_std,
        lm_head_std,
        c_fc_scale,
        ve_gate_max,
        resid_lambda,
        x0_lambda,
        smear_gate_max,
        smear_lambda,
        backout_lambda,
    } = init;
    let ModelRecipe {
        depth,
        aspect_ratio,
        head_dim,
        sequence_len,
        window_pattern,
        short_window,
        rope_base,
        rotary_precision,
        qk_scale,
        softcap,
        value_embeds,
        ve_gate_channels,
        ve_gate_scale,
        smear,
        smear_channels,
        backout,
        norm_eps,
        flops_count_smear_gate,
    } = model;
    let super::recipe::OptimizerRecipe {
        unembedding,
        embedding,
        value_embeds: value_embed_group,
        resid,
        x0,
        smear: smear_group,
        adam_eps,
        muon,
        weight_decay_law,
    } = optimizer;
    let super::recipe::MuonRecipe {
        lr,
        beta2,
        norm_factor,
        ns_steps,
        row_equilibration,
        renormalize,
        polar_precision,
        update_precision,
        weight_decay,
        momentum: super::recipe::MomentumRecipe { start, peak, warmup_steps, warmdown_to },
    } = muon;
    let super::recipe::ScheduleRecipe {
        warmup,
        warmdown_ratio,
        final_lr_frac,
        weight_decay_shape,
        param_data_ratio,
    } = schedule;
    let super::recipe::DataRecipe {
        device_batch_size,
        total_batch_size,
        eval_every,
        eval_tokens,
        token_bytes,
    } = data;
    let ramp =
        |ramp: &super::recipe::LayerRamp| serde_json::json!({ "first": ramp.first, "fall": ramp.fall });
    let mut values = merged([
        serde_json::json!({
        "commit": commit,
        "date": date,
        "model.depth": depth,
        "model.aspect_ratio": aspect_ratio,
        "model.head_dim": head_dim,
        "model.sequence_len": sequence_len,
        "model.window_pattern": window_pattern,
        "model.short_window": short_window,
        "model.rope_base": rope_base,
        "model.rotary_precision": rotary_precision,
        "model.qk_scale": qk_scale,
        "model.softcap": softcap,
        "model.value_embeds": value_embeds,
        "model.ve_gate_channels": ve_gate_channels,
        "model.ve_gate_scale": ve_gate_scale,
        "model.smear": smear,
        "model.smear_channels": smear_channels,
        "model.backout": backout,
        "model.norm_eps": norm_eps,
        "model.flops_count_smear_gate": flops_count_smear_gate,
        }),
        serde_json::json!({
        "init.wte_std": wte_std,
        "init.lm_head_std": lm_head_std,
        "init.c_fc_scale": c_fc_scale,
        "init.ve_gate_max": ve_gate_max,
        "init.resid_lambda": ramp(resid_lambda),
        "init.x0_lambda": ramp(x0_lambda),
        "init.smear_gate_max": smear_gate_max,
        "init.smear_lambda": smear_lambda,
        "init.backout_lambda": backout_lambda,
        }),
        serde_json::json!({
        "optimizer.adam_eps": adam_eps,
        "optimizer.muon.lr": lr,
        "optimizer.muon.beta2": beta2,
        "optimizer.muon.norm_factor": norm_factor,
        "optimizer.muon.ns_steps": ns_steps,
        "optimizer.muon.row_equilibration": row_equilibration,
        "optimizer.muon.renormalize": renormalize,
        "optimizer.muon.polar_precision": polar_precision,
        "optimizer.muon.update_precision": update_precision,
        "optimizer.muon.weight_decay": weight_decay,
        "optimizer.muon.momentum": {
            "start": start, "peak": peak, "warmup_steps": warmup_steps, "warmdown_to": warmdown_to,
        },
        "optimizer.weight_decay_law": weight_decay_law,
        }),
        serde_json::json!({
        "schedule.warmup": match warmup {
            WarmupRule::Ratio(ratio) => serde_json::json!({ "ratio": ratio }),
            WarmupRule::Steps(steps) => serde_json::json!({ "steps": steps }),
        },
        "schedule.warmdown_ratio": warmdown_ratio,
        "schedule.final_lr_frac": final_lr_frac,
        "schedule.weight_decay_shape": weight_decay_shape,
        "schedule.param_data_ratio": param_data_ratio,
        "data.device_batch_size": device_batch_size,
        "data.total_batch_size": match total_batch_size {
            BatchRule::Auto => serde_json::json!("auto"),
            BatchRule::Tokens(tokens) => serde_json::json!(tokens),
        },
        "data.eval_every": eval_every,
        "data.eval_tokens": eval_tokens,
        "data.token_bytes": token_bytes,
        }),
    ]);
    for (name, group) in [
        ("unembedding", unembedding),
        ("embedding", embedding),
        ("value_embeds", value_embed_group),
        ("resid", resid),
        ("x0", x0),
        ("smear", smear_group),
    ] {
        let AdamWRecipe { lr, betas, weight_decay } = group;
        values[format!("optimizer.{name}.lr")] = serde_json::json!(lr);
        values[format!("optimizer.{name}.betas")] = serde_json::json!(betas);
        values[format!("optimizer.{name}.weight_decay")] = serde_json::json!(weight_decay);
    }
    values
}

/// Each value of every table is what upstream's own code said when `scripts/new_commit` ran it, and what there was
/// nothing to read for is the convention that the record states.
#[test]
fn every_table_is_what_upstreams_code_reads_as() {
    let rows: Vec<Value> = include_str!("../../tests/fixtures/upstream/recipes.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), RECIPES.len());
    for (row, recipe) in rows.iter().zip(&RECIPES) {
        let mut told = told(recipe).as_object().unwrap().clone();
        let mut expect = |path: &str, value: &Value| {
            assert_eq!(told.remove(path).as_ref(), Some(value), "{}: {path}", recipe.short());
        };
        expect("commit", &row["commit"]);
        expect("date", &row["date"]);
        let read = row["recipe"].as_object().unwrap();
        for (path, value) in read.iter().chain(row["convention"].as_object().unwrap()) {
            expect(path, value);
        }
        assert!(told.is_empty(), "{}: neither read nor a convention: {told:?}", recipe.short());
        // Smear and backout are all that may be missing, where a commit has not got them.
        assert!(read.len() >= 60, "{}: {} values were read", recipe.short(), read.len());
    }
}

/// depth, dim, S with 32 gate channels, S with 12, log2 of the auto batch, decay factor, steps at 10.5 and at 12.
type Derived = (usize, usize, u64, u64, u32, f64, u64, u64);
const DERIVED: [Derived; 9] = [
    (4, 256, 11_534_464, 11_534_384, 18, 6.750, 462, 528),
    (6, 384, 23_200_032, 23_199_852, 18, 3.356, 929, 1062),
    (8, 512, 41_943_552, 41_943_232, 18, 1.856, 1680, 1920),
    (12, 768, 110_101_632, 110_100_912, 19, 1.0, 2205, 2520),
    (16, 1024, 234_883_072, 234_881_792, 19, 0.4688, 4704, 5376),
    (20, 1280, 435_162_240, 435_160_240, 20, 0.3578, 4357, 4980),
    (24, 1536, 729_813_504, 729_810_624, 20, 0.2134, 7308, 8352),
    (26, 1664, 918_426_912, 918_423_532, 20, 0.1695, 9196, 10510),
    (32, 2048, 1_677_729_792, 1_677_724_672, 21, 0.1313, 8400, 9600),
];

#[test]
fn the_derived_table_holds_for_every_commit() {
    for recipe in &RECIPES {
        let reference = shape(recipe, DEPTH_REF, 32768).sizes().params.scaling() as f64;
        for (depth, dim, s32, s12, log2_batch, decay, steps_10_5, steps_12) in DERIVED {
            let sizes = shape(recipe, depth, 32768).sizes();
            let scaling = sizes.params.scaling();
            assert_eq!(sizes.n_embd, dim);
            assert_eq!(scaling, if recipe.model.ve_gate_channels == 32 { s32 } else { s12 });
            for (ratio, steps) in [(10.5, steps_10_5), (12.0, steps_12)] {
                let target = target_tokens(ratio, scaling);
                let reference = ratio * reference;
                let batch = auto_batch_size(target as f64, reference);
                assert_eq!(batch, 1 << log2_batch, "d{depth}");
                assert_eq!(steps_for_tokens(target, batch), steps, "d{depth} at {ratio}");
                let law = WeightDecayLaw::Horizon;
                let factor = weight_decay_factor(law, depth, batch, target as f64, reference);
                assert!((factor - decay).abs() < 6e-4, "d{depth}: {factor} for {decay}");
            }
        }
    }
    assert_eq!(batch_lr_factor(1 << 18), 0.5_f64.sqrt());
    assert_eq!(weight_decay_factor(WeightDecayLaw::Depth, 24, 1, 1.0, 1.0), 0.25);
}

#[test]
fn leaderboard_step_counts() {
    for (commit, depth, ratio, batch, steps) in [
        ("348fbb3", 24, 12.0, 1 << 19, 16704),
        ("a67eba3", 26, 8.5, 1 << 19, 14889),
        ("2c062aa", 26, 8.25, 1 << 20, 7226),
    ] {
        let recipe = find(commit).unwrap();
        let target = target_tokens(ratio, shape(recipe, depth, 32768).sizes().params.scaling());
        assert_eq!(steps_for_tokens(target, batch), steps, "{commit}");
    }
}

#[test]
fn the_cpu_demo_script() {
    let recipe = newest();
    let demo = |depth| GptShape { head_dim: 64, sequence_len: 512, ..shape(recipe, depth, 32768) };
    let target = target_tokens(12.0, demo(6).sizes().params.scaling()) as f64;
    let reference = 12.0 * demo(12).sizes().params.scaling() as f64;
    assert!((batch_lr_factor(16384) - 0.1768).abs() < 1e-4);
    let factor = weight_decay_factor(WeightDecayLaw::Horizon, 6, 16384, target, reference);
    assert!((factor - 0.839).abs() < 1e-3, "{factor}");
}

#[test]
fn commits_are_found_by_prefix() {
    assert_eq!(find("92d63d4").unwrap().short(), "92d63d4");
    assert_eq!(find("92D63D4E8BB4df75c3b71618f31ddde2378b2bcd").unwrap(), newest());
    assert_eq!(find("92d63d"), Err(UnknownCommit::TooShort));
    assert_eq!(find("92d63d5"), Err(UnknownCommit::NotPinned));
    assert_eq!(find("not-hex"), Err(UnknownCommit::NotHex));
    for recipe in &RECIPES {
        assert_eq!(recipe.commit.len(), 40);
        assert_eq!(find(recipe.short()), Ok(recipe));
    }
}

#[test]
fn python_rounds_halves_to_even() {
    assert_eq!([0.5, 1.5, 2.5, 6.5, 7.8].map(round_half_even), [0, 2, 2, 6, 8]);
}

#[test]
fn short_windows() {
    let short = |rule, len| windows("S", rule, len, 2)[0];
    assert_eq!([2048, 1024, 512, 256].map(|t| short(ShortWindow::Third, t)), [768, 384, 256, 128]);
    assert_eq!([2048, 1024, 512, 256].map(|t| short(ShortWindow::Quarter, t)), [512, 256, 128, 128]);
    assert_eq!(short(ShortWindow::Half, 7), 3);
    assert_eq!(windows("SSL", ShortWindow::Half, 8, 5), [4, 4, 8, 4, 8]);
}
