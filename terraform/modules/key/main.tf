# One customer-managed KMS key. What may use it is said by IAM policies of this account (so each role names the key it
# needs) and by `services` for AWS services that come without a role of ours.

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

resource "aws_kms_key" "this" {
  description             = var.description
  enable_key_rotation     = true
  deletion_window_in_days = var.deletion_window_days
  policy                  = data.aws_iam_policy_document.this.json
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this.key_id
}

data "aws_iam_policy_document" "this" {
  #checkov:skip=CKV_AWS_109: a key policy must leave its own administration to the account, or the key is lost for good
  #checkov:skip=CKV_AWS_111: as above; in a key policy the resource "*" is this key alone
  #checkov:skip=CKV_AWS_356: as above, and for the same reason

  statement {
    sid       = "LeaveItToIamOfThisAccount"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:${data.aws_partition.this.partition}:iam::${data.aws_caller_identity.this.account_id}:root"]
    }
  }

  dynamic "statement" {
    for_each = var.used_by_logs_of == null ? [] : [var.used_by_logs_of]

    content {
      sid       = "EncryptTheseLogs"
      actions   = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:DescribeKey"]
      resources = ["*"]

      principals {
        type        = "Service"
        identifiers = ["logs.${data.aws_region.this.name}.amazonaws.com"]
      }

      condition {
        test     = "ArnLike"
        variable = "kms:EncryptionContext:aws:logs:arn"
        values = [
          "arn:${data.aws_partition.this.partition}:logs:${data.aws_region.this.name}:${data.aws_caller_identity.this.account_id}:log-group:${statement.value}",
        ]
      }
    }
  }

  # Volumes are attached by EC2 for whoever of this account starts the instance: the auto scaling group's service-linked
  # role, or the EBS CSI driver. The policy of the AWS-managed key aws/ebs says the same.
  dynamic "statement" {
    for_each = var.used_by_volumes ? ["volumes"] : []

    content {
      sid       = "EncryptVolumesThroughEc2"
      actions   = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKeyWithoutPlaintext", "kms:DescribeKey", "kms:CreateGrant"]
      resources = ["*"]

      principals {
        type        = "AWS"
        identifiers = ["*"]
      }

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["ec2.${data.aws_region.this.name}.amazonaws.com"]
      }

      condition {
        test     = "StringEquals"
        variable = "kms:CallerAccount"
        values   = [data.aws_caller_identity.this.account_id]
      }
    }
  }
}
