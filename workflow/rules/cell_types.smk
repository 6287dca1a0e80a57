# What kinds of cell are they? One picture of the cohort, and a label with a margin for each cell.


rule embed_cohort:
    input:
        matrices=of_cohort("<results>/intake/{sample}.h5ad"),
        qc=of_cohort("<results>/qc/samples/{sample}.tsv.gz"),
    output:
        cohort="<results>/embedding/cohort.h5ad",
        genes="<results>/embedding/genes.tsv.gz",
        stability="<results>/embedding/stability.tsv",
    log:
        "<logs>/embed_cohort.log",
    benchmark:
        "<benchmarks>/embed_cohort.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(4000, factor=40),
        runtime=minutes(30, per_100mb=30),
    params:
        settings=lookup("embedding", within=config),
        seed=lookup("seed", within=config),
        code=code_fingerprint("dtcflow.embed", "dtcflow.merge"),
    script:
        "../scripts/embed_cohort.py"


rule annotate_cells:
    input:
        cohort="<results>/embedding/cohort.h5ad",
        markers=MARKERS,
    output:
        cells="<results>/annotation/cells.tsv.gz",
    log:
        "<logs>/annotate_cells.log",
    benchmark:
        "<benchmarks>/annotate_cells.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2000, factor=20),
        runtime=minutes(15),
    params:
        settings=lookup("annotation", within=config),
        seed=lookup("seed", within=config),
        code=code_fingerprint("dtcflow.annotate"),
    script:
        "../scripts/annotate_cells.py"
