# One role for each service account of the platform's namespace, by EKS Pod Identity. The table `roles` says what each
# may do; policies.tf turns it into IAM's words. Steps and folders are those of distill_platform/artifact.py:
#
#   artifacts/<step>/<key>/   work/<step>/<key>/   leases/<step>/<key>/   runs/<run>/<step>…   registry/<model>/
#
# A role writes the folders of its own steps. So a trainer, which runs what a spec names, can fake no cache, no verdict
# and no promotion; and only the gate sees the test split, the verdict's worth.

locals {
  steps = ["prepare", "teacher", "cache", "baseline", "sweep", "compress", "evaluate", "gate", "register", "promote"]

  roles = {
    cacher = {
      steps        = ["prepare", "teacher", "cache"]
      reads        = ["artifacts/prepare/*", "artifacts/teacher/*", "artifacts/cache/*"]
      writes       = []
      reads_data   = true
      opens_test   = false
      reads_models = false
    }
    trainer = {
      steps        = ["baseline", "sweep", "compress"]
      reads        = [for step in ["prepare", "teacher", "cache", "baseline", "sweep", "compress"] : "artifacts/${step}/*"]
      writes       = []
      reads_data   = false
      opens_test   = false
      reads_models = false
    }
    gate = {
      steps        = ["evaluate", "gate"]
      reads        = ["artifacts/*", "registry/*"]
      writes       = []
      reads_data   = false
      opens_test   = true
      reads_models = true # the champion, to compare with
    }
    promoter = {
      steps        = ["register", "promote"]
      reads        = ["artifacts/*", "registry/*"]
      writes       = ["registry/*"]
      reads_data   = false
      opens_test   = false
      reads_models = true
    }
  }

  # What MLflow and the collector do is not a step: policies of their own.
  documents = merge(
    { for role in keys(local.roles) : role => data.aws_iam_policy_document.role[role].json },
    {
      mlflow    = data.aws_iam_policy_document.mlflow.json
      collector = data.aws_iam_policy_document.collector.json
    },
  )
}

resource "aws_iam_role" "this" {
  for_each = local.documents

  name               = "${var.name}-${each.key}"
  description        = "Service account distill-${each.key} of ${var.name}"
  assume_role_policy = data.aws_iam_policy_document.trust[each.key].json
}

resource "aws_iam_role_policy" "this" {
  for_each = local.documents

  name   = "least"
  role   = aws_iam_role.this[each.key].id
  policy = each.value
}

resource "aws_eks_pod_identity_association" "this" {
  for_each = aws_iam_role.this

  cluster_name    = var.cluster_name
  namespace       = var.namespace
  service_account = "distill-${each.key}"
  role_arn        = each.value.arn
}

# The association alone would do for a pod to get the role; the conditions also hold against an association with another
# service account that is made by mistake.
data "aws_iam_policy_document" "trust" {
  for_each = toset(concat(keys(local.roles), ["mlflow", "collector"]))

  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/eks-cluster-name"
      values   = [var.cluster_name]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/kubernetes-namespace"
      values   = [var.namespace]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/kubernetes-service-account"
      values   = ["distill-${each.key}"]
    }
  }
}
