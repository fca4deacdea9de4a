# What holds for everyone in the workspace, whatever their own role allows.

data "aws_iam_policy_document" "workspace" {
  # A commit is a PUT with `If-None-Match: *`: the first one wins, and nobody can put another over it. Creating a
  # multipart upload and its parts take no such header; completing one does, so those are the only ones exempt.
  # (S3 user guide, "Enforce conditional writes on Amazon S3 buckets".)
  statement {
    sid       = "CommitsAreCreatedNeverReplaced"
    effect    = "Deny"
    actions   = ["s3:PutObject"]
    resources = [for pattern in var.create_only : "${local.arns.workspace}/${pattern}"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Null"
      variable = "s3:if-none-match"
      values   = ["true"]
    }

    condition {
      test     = "Bool"
      variable = "s3:ObjectCreationOperation"
      values   = ["true"]
    }
  }

  statement {
    sid       = "ArtifactsAreDeletedByTheCollectorAlone"
    effect    = "Deny"
    actions   = ["s3:DeleteObject"]
    resources = ["${local.arns.workspace}/artifacts/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "ArnNotEquals"
      variable = "aws:PrincipalArn"
      values   = [var.collector_role_arn]
    }
  }

  statement {
    sid       = "TheLogIsNeverDeleted"
    effect    = "Deny"
    actions   = ["s3:DeleteObject"]
    resources = ["${local.arns.workspace}/registry/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }
  }

  # What was deleted can be had back, until the lifecycle (which no policy stops) forgets it.
  statement {
    sid       = "VersionsAreNeverDeleted"
    effect    = "Deny"
    actions   = ["s3:DeleteObjectVersion"]
    resources = ["${local.arns.workspace}/artifacts/*", "${local.arns.workspace}/registry/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }
  }
}
