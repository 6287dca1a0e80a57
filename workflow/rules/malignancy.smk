# Which cells are tumour cells, and how sure are we? Copy number per patient, then calls at a false-discovery rate.


rule infer_copy_number:
    input:
        matrices=of_patient("<results>/intake/{sample}.h5ad"),
        qc=of_patient("<results>/qc/samples/{sample}.tsv.gz"),
        annotation="<results>/annotation/cells.tsv.gz",
        genes="<results>/embedding/genes.tsv.gz",
        profile=known_profile,
    output:
        cells="<results>/cnv/patients/{patient}.cells.tsv.gz",
        windows="<results>/cnv/patients/{patient}.h5ad",
        status="<results>/cnv/patients/{patient}.json",
    log:
        "<logs>/infer_copy_number/{patient}.log",
    benchmark:
        "<benchmarks>/infer_copy_number/{patient}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2500, factor=40),
        runtime=minutes(20, per_100mb=20),
    params:
        settings=lookup("copy_number", within=config),
        epithelial_z=lookup("annotation/epithelial_z", within=config),
        seed=lookup("seed", within=config),
        build=lookup("intake/genome_build", within=config),
        samples=lambda wildcards: samples_of(wildcards.patient),
        code=code_fingerprint("dtcflow.cnv.run", "dtcflow.cells"),
    script:
        "../scripts/infer_copy_number.py"


rule call_cells:
    input:
        qc=of_cohort("<results>/qc/samples/{sample}.tsv.gz"),
        annotation="<results>/annotation/cells.tsv.gz",
        cells=of_cohort("<results>/cnv/patients/{patient}.cells.tsv.gz"),
        windows=of_cohort("<results>/cnv/patients/{patient}.h5ad"),
        status=of_cohort("<results>/cnv/patients/{patient}.json"),
    output:
        cells="<results>/calls/cells.tsv.gz",
        arms=report(
            "<results>/cnv/arms.tsv",
            caption="../report/arms.rst",
            category="Copy number",
            labels={"table": "chromosome arms"},
        ),
        clones="<results>/cnv/clones.tsv",
        events="<results>/cnv/events.tsv",
        tree="<results>/cnv/tree.nwk",
    log:
        "<logs>/call_cells.log",
    benchmark:
        "<benchmarks>/call_cells.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2000, factor=20),
        runtime=minutes(15),
    params:
        settings=lookup("copy_number", within=config),
        code=code_fingerprint("dtcflow.call"),
    script:
        "../scripts/call_cells.py"


rule compare_profiles:
    input:
        calls="<results>/calls/cells.tsv.gz",
        windows=expand("<results>/cnv/patients/{patient}.h5ad", patient=PROFILES),
        profiles=list(PROFILES.values()),
    output:
        comparison=report(
            "<results>/cnv/comparison.tsv",
            caption="../report/comparison.rst",
            category="Copy number",
            labels={"table": "against known copy number"},
        ),
    log:
        "<logs>/compare_profiles.log",
    benchmark:
        "<benchmarks>/compare_profiles.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(1000, factor=20),
        runtime=minutes(10),
    params:
        patients={patient: samples_of(patient) for patient in PROFILES},
        effect=lookup("copy_number/min_abs_log_ratio", within=config),
        build=lookup("intake/genome_build", within=config),
        code=code_fingerprint("dtcflow.cnv.compare"),
    script:
        "../scripts/compare_profiles.py"


rule export_segments:
    input:
        calls="<results>/calls/cells.tsv.gz",
        windows=of_cohort("<results>/cnv/patients/{patient}.h5ad"),
    output:
        segments="<results>/cnv/segments.seg",
    log:
        "<logs>/export_segments.log",
    benchmark:
        "<benchmarks>/export_segments.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(1000, factor=20),
        runtime=minutes(10),
    params:
        effect=lookup("copy_number/min_abs_log_ratio", within=config),
        code=code_fingerprint("dtcflow.cnv.seg"),
    script:
        "../scripts/export_segments.py"
