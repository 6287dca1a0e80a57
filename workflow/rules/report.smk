# What does it all say? The public tables and objects, the record of how they were made, and one page to read.


rule record_provenance:
    input:
        intake=of_cohort("<results>/intake/{sample}.json"),
        claims=config["claims"],
        tables=[
            *(GENE_POSITIONS, MARKERS, PANEL, *PANEL_FACTS, *config["scores"]["gmt"]),
            *(str(shipped.path(name)) for name in ("gene_aliases.tsv.gz", "gene_classes.tsv", "chromosome_arms.tsv")),
        ],
        profiles=list(PROFILES.values()),
    output:
        provenance="<results>/provenance.json",
    log:
        "<logs>/record_provenance.log",
    benchmark:
        "<benchmarks>/record_provenance.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=minutes(5),
    params:
        config=config,
        samples=SAMPLES.reset_index().astype(object).where(SAMPLES.reset_index().notna(), None).to_dict("records"),
        patients=list(PROFILES),
        code=code_fingerprint("dtcflow.provenance", "dtcflow.report.text", "dtcflow.evidence.plan"),
    script:
        "../scripts/record_provenance.py"


rule assemble_cohort:
    input:
        cohort="<results>/embedding/cohort.h5ad",
        qc=of_cohort("<results>/qc/samples/{sample}.tsv.gz"),
        annotation="<results>/annotation/cells.tsv.gz",
        calls="<results>/calls/cells.tsv.gz",
        scores="<results>/scores/cells.tsv.gz",
        windows=of_cohort("<results>/cnv/patients/{patient}.h5ad"),
        ambient=of_cohort("<results>/qc/ambient/{sample}.h5ad") if config["qc"]["ambient_layer"] else [],
        provenance="<results>/provenance.json",
        panel=PANEL,
        panel_facts=PANEL_FACTS,
    output:
        cohort="<results>/cohort.h5ad",
        cells=report(
            "<results>/cells.tsv.gz",
            caption="../report/cells.rst",
            category="Cells",
            labels={"table": "all cells"},
        ),
    log:
        "<logs>/assemble_cohort.log",
    benchmark:
        "<benchmarks>/assemble_cohort.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(3000, factor=30),
        runtime=minutes(20, per_100mb=10),
    params:
        code=code_fingerprint("dtcflow.assemble", "dtcflow.cells"),
    script:
        "../scripts/assemble_cohort.py"


rule write_report:
    input:
        cells="<results>/cells.tsv.gz",
        claims="<results>/evidence/claims.tsv",
        patients="<results>/evidence/patients.tsv",
        verdict="<results>/evidence/verdict.json",
        sensitivity="<results>/evidence/sensitivity.tsv",
        controls="<results>/evidence/controls.tsv",
        pathways="<results>/evidence/pathways.tsv",
        arms="<results>/cnv/arms.tsv",
        clones="<results>/cnv/clones.tsv",
        loss_audit="<results>/qc/loss_audit.tsv",
        identity="<results>/intake/identity.tsv",
        signature_coverage="<results>/scores/signatures.tsv",
        stability="<results>/embedding/stability.tsv",
        embedding="<results>/cohort.h5ad",
        provenance="<results>/provenance.json",
        qc_summaries=of_cohort("<results>/qc/samples/{sample}.json"),
        intake_reports=of_cohort("<results>/intake/{sample}.json"),
        cnv_statuses=of_cohort("<results>/cnv/patients/{patient}.json"),
        cnv_windows=of_cohort("<results>/cnv/patients/{patient}.h5ad"),
        cnv_cells=of_cohort("<results>/cnv/patients/{patient}.cells.tsv.gz"),
    output:
        page="<results>/report.html",
        patients=report(
            "<results>/figures/patients.svg",
            caption="../report/patients.rst",
            category="Verdict",
            labels={"figure": "patients"},
        ),
        umap=report(
            "<results>/figures/umap.png",
            caption="../report/umap.rst",
            category="Cells",
            labels={"figure": "UMAP"},
        ),
        waterfall=report(
            "<results>/figures/qc_waterfall.svg",
            caption="../report/qc_waterfall.rst",
            category="Cells",
            labels={"figure": "QC waterfall"},
        ),
        heatmap=report(
            "<results>/figures/cnv_heatmap.png",
            caption="../report/cnv_heatmap.rst",
            category="Copy number",
            labels={"figure": "copy-number heatmap"},
        ),
        # vector figures of every claim; what the folder holds: dtcflow.report.figures
        claim_figures=report(
            directory("<results>/evidence/figures"),
            patterns=["{figure}.svg"],
            caption="../report/claim_figures.rst",
            category="Verdict",
            labels={"figure": "claim {figure}"},
        ),
    log:
        "<logs>/write_report.log",
    benchmark:
        "<benchmarks>/write_report.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2500, factor=10),
        runtime=minutes(20),
    params:
        config=config,
        code=code_fingerprint("dtcflow.report.build", "dtcflow.report.figures"),
    script:
        "../scripts/write_report.py"
