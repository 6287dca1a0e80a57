# Which programmes do the cells run? Signature scores calibrated against matched random gene sets.


rule score_signatures:
    input:
        cohort="<results>/embedding/cohort.h5ad",
        panel=config["scores"]["signatures"] or str(shipped.path("signatures.tsv")),
        gmt=config["scores"]["gmt"],
    output:
        cells="<results>/scores/cells.tsv.gz",
        signatures="<results>/scores/signatures.tsv",
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
        code=code_fingerprint("dtcflow.scores.run"),
    script:
        "../scripts/score_signatures.py"
