# Which cells did the lab give us? Counts of one sample in one form, genes placed on the genome.

if config["simulate"]:

    rule simulate_cohort:
        # only the demo: the matrices that config/samples.tsv names, and their truth, which no other rule may read
        output:
            matrices=of_cohort("<results>/simulated/matrices/{sample}.h5ad"),
            truth=[
                "<results>/simulated/truth/cells.tsv.gz",
                "<results>/simulated/truth/karyotypes.tsv",
                "<results>/simulated/truth/patients.tsv",
                "<results>/simulated/truth/parameters.json",
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
        markers=MARKERS,
    output:
        matrix="<results>/intake/{sample}.h5ad",
        report="<results>/intake/{sample}.json",
        fingerprints="<results>/intake/{sample}.cells.tsv.gz",
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
        code=code_fingerprint("dtcflow.io.intake", "dtcflow.io.fingerprints"),
    script:
        "../scripts/read_sample.py"


rule check_identities:
    # swapped, mixed and repeated samples: warnings, never a reason to stop
    input:
        reports=of_cohort("<results>/intake/{sample}.json"),
        fingerprints=of_cohort("<results>/intake/{sample}.cells.tsv.gz"),
    output:
        findings=report(
            "<results>/intake/identity.tsv",
            caption="../report/identity.rst",
            category="Cells",
            labels={"table": "identity of samples"},
        ),
    log:
        "<logs>/check_identities.log",
    benchmark:
        "<benchmarks>/check_identities.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(1000, factor=60),
        runtime=minutes(10),
    params:
        samples={sample: {"patient_id": row["patient_id"], "sex": row["sex"]} for sample, row in SAMPLES.iterrows()},
        code=code_fingerprint("dtcflow.io.identities"),
    script:
        "../scripts/check_identities.py"
