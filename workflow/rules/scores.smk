# Which programmes do the cells run? Signature scores calibrated against matched random gene sets.


rule score_signatures:
    input:
        cohort="<results>/embedding/cohort.h5ad",
        panel=PANEL,
        panel_facts=PANEL_FACTS,
        gmt=config["scores"]["gmt"],
    output:
        cells="<results>/scores/cells.tsv.gz",
        signatures="<results>/scores/signatures.tsv",
        overlaps="<results>/scores/overlaps.tsv",
    log:
        "<logs>/score_signatures.log",
    benchmark:
        "<benchmarks>/score_signatures.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2500, factor=20),
        runtime=minutes(20, per_100mb=20),
    params:
        settings=lookup("scores", within=config),
        seed=lookup("seed", within=config),
        code=code_fingerprint("dtcflow.scores.run", "dtcflow.scores.overlaps"),
    script:
        "../scripts/score_signatures.py"


rule score_pseudobulk:
    input:
        cohort="<results>/embedding/cohort.h5ad",
        qc=of_cohort("<results>/qc/samples/{sample}.tsv.gz"),
        calls="<results>/calls/cells.tsv.gz",
        panel=PANEL,
        panel_facts=PANEL_FACTS,
        gmt=config["scores"]["gmt"],
    output:
        scores="<results>/scores/pseudobulk_scores.tsv",
    log:
        "<logs>/score_pseudobulk.log",
    benchmark:
        "<benchmarks>/score_pseudobulk.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(3000, factor=20),
        runtime=minutes(20, per_100mb=10),
    params:
        leave_out=POST_SAMPLES,
        seed=lookup("seed", within=config),
        code=code_fingerprint("dtcflow.evidence.pseudobulk_scores", "dtcflow.cells"),
    script:
        "../scripts/score_pseudobulk.py"
