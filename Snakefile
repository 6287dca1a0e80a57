# The workflow is in workflow/Snakefile; this file lets `snakemake` find it from here.
include: "workflow/Snakefile"


# an included file's first rule is no default target
rule default:
    default_target: True
    input:
        rules.all.input,
