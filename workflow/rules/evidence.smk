# Does it hold across patients? The pre-specified claims of config/claims.yaml, one value per patient and compartment.


rule test_claims:
    input:
        cohort="<results>/embedding/cohort.h5ad",
        qc=of_cohort("<results>/qc/samples/{sample}.tsv.gz"),
        annotation="<results>/annotation/cells.tsv.gz",
        calls="<results>/calls/cells.tsv.gz",
        genomes=of_cohort("<results>/cnv/patients/{patient}.h5ad"),
        identities="<results>/intake/identity.tsv",
        claims=config["claims"],
        panel=PANEL,
        panel_facts=PANEL_FACTS,
        gmt=config["scores"]["gmt"],
        markers=MARKERS,
    output:
        claims=report(
            "<results>/evidence/claims.tsv",
            caption="../report/claims.rst",
            category="Verdict",
            labels={"table": "claims"},
        ),
        patients="<results>/evidence/patients.tsv",
        verdict="<results>/evidence/verdict.json",
        sensitivity="<results>/evidence/sensitivity.tsv",
        controls="<results>/evidence/controls.tsv",
    log:
        "<logs>/test_claims.log",
    benchmark:
        "<benchmarks>/test_claims.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(3000, factor=20),
        runtime=minutes(30, per_100mb=20),
    params:
        settings=lookup("evidence", within=config),
        samples=SAMPLES.reset_index().astype(object).where(SAMPLES.reset_index().notna(), None).to_dict("records"),
        seed=lookup("seed", within=config),
        code=code_fingerprint("dtcflow.evidence.run", "dtcflow.evidence.plan", "dtcflow.cells"),
    script:
        "../scripts/test_claims.py"


rule compare_pseudobulk:
    input:
        cohort="<results>/embedding/cohort.h5ad",
        qc=of_cohort("<results>/qc/samples/{sample}.tsv.gz"),
        calls="<results>/calls/cells.tsv.gz",
        panel=PANEL,
        panel_facts=PANEL_FACTS,
        gmt=config["scores"]["gmt"],
    output:
        genes="<results>/evidence/pseudobulk.tsv",
        pathways="<results>/evidence/pathways.tsv",
    log:
        "<logs>/compare_pseudobulk.log",
    benchmark:
        "<benchmarks>/compare_pseudobulk.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(3000, factor=20),
        runtime=minutes(30, per_100mb=20),
    params:
        leave_out=POST_SAMPLES,
        seed=lookup("seed", within=config),
        code=code_fingerprint("dtcflow.evidence.pseudobulk", "dtcflow.cells"),
    script:
        "../scripts/compare_pseudobulk.py"
