# Which cells are usable? Every input cell keeps its row; nothing is removed for having many counts.


rule qc_sample:
    input:
        matrix="<results>/intake/{sample}.h5ad",
        markers=MARKERS,
    output:
        cells="<results>/qc/samples/{sample}.tsv.gz",
        summary="<results>/qc/samples/{sample}.json",
    log:
        "<logs>/qc_sample/{sample}.log",
    benchmark:
        "<benchmarks>/qc_sample/{sample}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2000, factor=40),
        runtime=minutes(15),
    params:
        settings=lookup("qc", within=config),
        epithelial_z=lookup("annotation/epithelial_z", within=config),
        seed=lookup("seed", within=config),
        code=code_fingerprint("dtcflow.qc.run"),
    script:
        "../scripts/qc_sample.py"


rule summarise_qc:
    input:
        cells=of_cohort("<results>/qc/samples/{sample}.tsv.gz"),
        summaries=of_cohort("<results>/qc/samples/{sample}.json"),
    output:
        waterfall="<results>/qc/waterfall.tsv",
        summary="<results>/qc/summary.tsv",
        figure="<results>/qc/waterfall.svg",
    log:
        "<logs>/summarise_qc.log",
    benchmark:
        "<benchmarks>/summarise_qc.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(1500),
        runtime=minutes(10),
    params:
        code=code_fingerprint("dtcflow.qc.waterfall", "dtcflow.plot.qc"),
    script:
        "../scripts/summarise_qc.py"


if config["qc"]["ambient_layer"]:

    rule correct_ambient:
        input:
            matrix="<results>/intake/{sample}.h5ad",
            cells="<results>/qc/samples/{sample}.tsv.gz",
        output:
            layer="<results>/qc/ambient/{sample}.h5ad",
        log:
            "<logs>/correct_ambient/{sample}.log",
        benchmark:
            "<benchmarks>/correct_ambient/{sample}.tsv"
        conda:
            ENVIRONMENT
        threads: 1
        resources:
            mem_mb=memory(1500, factor=40),
            runtime=minutes(10),
        params:
            code=code_fingerprint("dtcflow.qc.decontaminate"),
        script:
            "../scripts/correct_ambient.py"


rule audit_losses:
    input:
        qc=of_cohort("<results>/qc/samples/{sample}.tsv.gz"),
        calls="<results>/calls/cells.tsv.gz",
    output:
        audit=report(
            "<results>/qc/loss_audit.tsv",
            caption="../report/loss_audit.rst",
            category="Cells",
            labels={"table": "loss audit"},
        ),
    log:
        "<logs>/audit_losses.log",
    benchmark:
        "<benchmarks>/audit_losses.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(1500),
        runtime=minutes(10),
    params:
        epithelial_z=lookup("annotation/epithelial_z", within=config),
        fdr=lookup("copy_number/fdr", within=config),
        code=code_fingerprint("dtcflow.qc.loss_audit"),
    script:
        "../scripts/audit_losses.py"
