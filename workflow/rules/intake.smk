# Which cells did the lab give us? Counts of one sample in one form, genes placed on the genome.

if config["simulate"]:

    rule simulate_cohort:
        # only the demo: the matrices that config/samples.tsv names, and their truth, which no other rule may read
        output:
            matrices=of_cohort("<results>/simulated/matrices/{sample}.h5ad"),
            truth=[
                "<results>/simulated/truth/cells.tsv.gz",
                "<results>/simulated/truth/karyotypes.tsv",
            ],
        log:
            "<logs>/simulate_cohort.log",
        benchmark:
            "<benchmarks>/simulate_cohort.tsv"
        conda:
            ENVIRONMENT
        threads: 1
        resources:
            mem_mb=memory(4000),
            runtime=minutes(20),
        params:
            design=lookup("simulate", within=config),
            code=code_fingerprint("dtcflow.simulate"),
        script:
            "../scripts/simulate_cohort.py"


rule read_sample:
    input:
        matrix=lookup(query="index == '{sample}'", within=SAMPLES, cols="path"),
        raw=unfiltered_beside,
        positions=GENE_POSITIONS,
        markers=config["annotation"]["panels"] or str(shipped.path("markers.tsv")),
    output:
        matrix="<results>/intake/{sample}.h5ad",
        report="<results>/intake/{sample}.json",
    log:
        "<logs>/read_sample/{sample}.log",
    benchmark:
        "<benchmarks>/read_sample/{sample}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(1500, factor=30),
        runtime=minutes(10),
    params:
        row=lambda wildcards: {
            "sample_id": wildcards.sample,
            **SAMPLES.loc[wildcards.sample].dropna().to_dict(),
        },
        config={"intake": config["intake"], "seed": config["seed"]},
        code=code_fingerprint("dtcflow.io.intake"),
    script:
        "../scripts/read_sample.py"
