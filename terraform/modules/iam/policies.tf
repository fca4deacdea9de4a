data "aws_region" "this" {}

locals {
  workspace = var.bucket_arns.workspace
  models    = var.bucket_arns.models
  via_s3    = "s3.${data.aws_region.this.name}.amazonaws.com"
}

data "aws_iam_policy_document" "role" {
  for_each = local.roles

  # On the whole bucket, and not by prefix: without this permission S3 answers 403 for an object that is not there,
  # where the platform waits for a 404. Names tell nothing: they are hashes. The cacher also looks for uploads that a dead
  # build of the same cache left.
  statement {
    sid       = "List"
    actions   = concat(["s3:ListBucket"], contains(each.value.steps, "cache") ? ["s3:ListBucketMultipartUploads"] : [])
    resources = concat([local.workspace], each.value.reads_data ? [var.bucket_arns.data] : [], each.value.reads_models ? [local.models] : [])
  }

  statement {
    sid     = "Read"
    actions = ["s3:GetObject"]
    resources = concat(
      [for pattern in concat(each.value.reads, ["runs/*"]) : "${local.workspace}/${pattern}"],
      flatten([for step in each.value.steps : ["${local.workspace}/work/${step}/*", "${local.workspace}/leases/${step}/*"]]),
      each.value.reads_data ? ["${var.bucket_arns.data}/*"] : [],
      each.value.reads_models ? ["${local.models}/mlflow/*"] : [],
    )
  }

  dynamic "statement" {
    for_each = each.value.opens_test ? [] : ["test"]

    content {
      sid       = "TheTestSplitStaysShut"
      effect    = "Deny"
      actions   = ["s3:GetObject"]
      resources = ["${local.workspace}/artifacts/prepare/*/splits/test-*"]
    }
  }

  statement {
    sid     = "Write"
    actions = ["s3:PutObject", "s3:AbortMultipartUpload"]
    resources = concat(
      flatten([for step in each.value.steps : [for folder in ["artifacts", "work", "leases"] : "${local.workspace}/${folder}/${step}/*"]]),
      [for pattern in concat(each.value.writes, ["runs/*"]) : "${local.workspace}/${pattern}"],
    )
  }

  # All write to the folder of their run, each what its own steps did.
  statement {
    sid     = "OtherStepsTellTheirOwn"
    effect  = "Deny"
    actions = ["s3:PutObject"]
    resources = flatten([
      for step in local.steps : ["${local.workspace}/runs/*/${step}.*", "${local.workspace}/runs/*/${step}-*"]
      if !contains(each.value.steps, step)
    ])
  }

  # What an unfinished step continued from, and its lease, once it has committed. Artifacts are not among them.
  statement {
    sid       = "CleanUp"
    actions   = ["s3:DeleteObject"]
    resources = flatten([for step in each.value.steps : [for folder in ["work", "leases"] : "${local.workspace}/${folder}/${step}/*"]])
  }

  dynamic "statement" {
    for_each = each.key == "promoter" ? ["models"] : []

    content {
      sid       = "Register"
      actions   = ["s3:PutObject", "s3:AbortMultipartUpload"]
      resources = ["${local.models}/mlflow/*"]
    }
  }

  statement {
    sid       = "UseKeys"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = distinct(concat([var.key_arns.workspace], each.key == "promoter" ? [var.key_arns.models] : []))

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = [local.via_s3]
    }
  }

  dynamic "statement" {
    for_each = each.value.reads_models && each.key != "promoter" ? ["models"] : []

    content {
      sid       = "ReadModels"
      actions   = ["kms:Decrypt"]
      resources = [var.key_arns.models]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = [local.via_s3]
      }
    }
  }
}

# The server shows model files and keeps records; it writes no model file.
data "aws_iam_policy_document" "mlflow" {
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [local.models]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["mlflow/*"]
    }
  }

  statement {
    sid       = "ShowModels"
    actions   = ["s3:GetObject"]
    resources = ["${local.models}/mlflow/*"]
  }

  statement {
    sid       = "DecryptModels"
    actions   = ["kms:Decrypt"]
    resources = [var.key_arns.models]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = [local.via_s3]
    }
  }

  statement {
    sid       = "LogInToDatabase"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [var.database_secret_arn]
  }

  statement {
    sid       = "DecryptSecret"
    actions   = ["kms:Decrypt"]
    resources = [var.database_key_arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["secretsmanager.${data.aws_region.this.name}.amazonaws.com"]
    }
  }
}

# `distill cache gc`: reads every reference, holds the lease of what it removes, and puts a record back that turns out to
# be wanted. Of committed artifacts it may take caches; of all others only what was never committed.
data "aws_iam_policy_document" "collector" {
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
    resources = [local.workspace]
  }

  statement {
    sid       = "ReadReferences"
    actions   = ["s3:GetObject"]
    resources = [for pattern in ["artifacts/*/record.json", "runs/*", "leases/*"] : "${local.workspace}/${pattern}"]
  }

  statement {
    sid       = "Delete"
    actions   = ["s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = [for folder in ["artifacts", "work", "leases"] : "${local.workspace}/${folder}/*"]
  }

  statement {
    sid       = "OfTheCommittedOnlyCaches"
    effect    = "Deny"
    actions   = ["s3:DeleteObject"]
    resources = [for step in local.steps : "${local.workspace}/artifacts/${step}/*/record.json" if step != "cache"]
  }

  statement {
    sid       = "HoldLeasesAndPutBackRecords"
    actions   = ["s3:PutObject"]
    resources = ["${local.workspace}/leases/*", "${local.workspace}/artifacts/cache/*/record.json"]
  }

  statement {
    sid       = "UseKeys"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [var.key_arns.workspace]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = [local.via_s3]
    }
  }
}
