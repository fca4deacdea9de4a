# `terraform test` here: what is refused, and what must hold. No AWS is asked.

mock_provider "aws" {
  source = "../../tests/mocks"
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
