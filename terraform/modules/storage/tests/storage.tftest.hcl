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
  name               = "distill-test"
  collector_role_arn = "arn:aws:iam::123456789012:role/distill-test-collector"
  model_lock         = { mode = "GOVERNANCE", days = 1 }
}

run "refuses_a_long_name" {
  command = plan

  variables {
    name = "a-name-that-no-bucket-could-carry"
  }

  expect_failures = [var.name]
}

run "refuses_a_wildcard_for_the_collector" {
  command = plan

  variables {
    collector_role_arn = "arn:aws:iam::123456789012:role/*"
  }

  expect_failures = [var.collector_role_arn]
}

run "refuses_records_that_can_be_replaced" {
  command = plan

  variables {
    create_only = ["registry/*"]
  }

  expect_failures = [var.create_only]
}

run "refuses_short_access_logs" {
  command = plan

  variables {
    log_retention_days = 7
  }

  expect_failures = [var.log_retention_days]
}

run "refuses_no_images" {
  command = plan

  variables {
    images = []
  }

  expect_failures = [var.images]
}

run "names_are_of_account_and_region" {
  command = plan

  assert {
    condition     = local.names.workspace == "distill-test-workspace-123456789012-eu-central-1"
    error_message = "bucket names are shared by all of AWS"
  }
}
