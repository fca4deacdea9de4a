# `terraform test` here: what is refused, and what must hold. No AWS is asked.

mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }

  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
  }

  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }

  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-0000-0000-000000000000" }
  }

  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mock" }
  }

  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:mock" }
  }

  mock_resource "aws_eks_cluster" {
    defaults = { arn = "arn:aws:eks:eu-central-1:123456789012:cluster/distill-test" }
  }

  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 1 }
  }
}

variables {
  name                = "distill-test"
  cluster_name        = "distill-test"
  database_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:mlflow"
  database_key_arn    = "arn:aws:kms:::mlflow"

  bucket_arns = {
    data      = "arn:aws:s3:::data"
    workspace = "arn:aws:s3:::workspace"
    models    = "arn:aws:s3:::models"
  }

  key_arns = {
    workspace = "arn:aws:kms:eu-central-1:123456789012:key/workspace"
    models    = "arn:aws:kms:eu-central-1:123456789012:key/models"
  }
}

run "refuses_a_long_name" {
  command = plan

  variables {
    name = "a-name-that-no-bucket-could-carry"
  }

  expect_failures = [var.name]
}

run "refuses_a_namespace_of_kubernetes" {
  command = plan

  variables {
    namespace = "kube-system"
  }

  expect_failures = [var.namespace]
}

run "refuses_one_bucket_for_all" {
  command = plan

  variables {
    bucket_arns = { data = "arn:aws:s3:::one", workspace = "arn:aws:s3:::one", models = "arn:aws:s3:::one" }
  }

  expect_failures = [var.bucket_arns]
}

run "refuses_a_wildcard_bucket" {
  command = plan

  variables {
    bucket_arns = { data = "arn:aws:s3:::*", workspace = "arn:aws:s3:::workspace", models = "arn:aws:s3:::models" }
  }

  expect_failures = [var.bucket_arns]
}

run "each_step_has_one_role" {
  command = plan

  assert {
    condition     = sort(flatten([for role in local.roles : role.steps])) == sort(local.steps)
    error_message = "every step belongs to exactly one role"
  }

  assert {
    condition     = [for role, given in local.roles : role if given.opens_test] == ["gate"]
    error_message = "the gate alone opens the test split"
  }
}
